"""Generated patients and foods with planted truth: relevance follows diet rules, and some rules need the picture.

A food has a level of 0 to 4 of seven nutrients. Sodium, iron, fibre and potassium are told by its text alone; sugar
(the hue of the dish), saturated fat (drops of fat) and the size of the portion by its rendered picture alone. A user
has one or two conditions and a favourite cuisine, told by free text alone; each condition wants one nutrient low, high
or in the middle. What is relevant is drawn without repeats from foods without anything the user is allergic to, with
log-odds = MATCH * (how well the food suits the conditions) + CUISINE * (it is of the favourite one) + popularity. A
user needs the picture where a condition's nutrient is only seen.

With `guidelines`, every user keeps to one of several, which the text names: each hands the rules out to the conditions
in an order of its own, so that users of one condition want different, and opposite, things.
"""

from __future__ import annotations

import colorsys
import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw
from pydantic import Field

from rec.data.generated.shards import generate_once
from rec.data.runner import part_bounds
from rec.data.schema import EntityTable, RawData, RecordTable, Source, Workplace
from rec.data.tables import ForeignTable
from rec.seeds import generator
from rec.strict import Strict

LEVELS = 5
MATCH, CUISINE, POPULARITY = 8.0, 2.5, 0.3
USERS_PER_DRAW = 512
VECTOR = pa.list_(pa.float32())
TOLD = ("sodium", "iron", "fibre", "potassium")
"""Nutrients that words tell ..."""
SEEN = ("sugar", "saturated fat", "portion")
"""... and those that only the picture shows."""
NUTRIENTS = (*TOLD, *SEEN)
TOLD_OF_USERS = ("condition", "second_condition", "guideline", "likes")
"""Attributes that tell all of a patient ..."""
TOLD_OF_ITEMS = ("cuisine", *(name.replace(" ", "_") for name in NUTRIENTS))
"""... and of a food."""
LOW, MIDDLE, HIGH = "low", "middle", "high"


class FoodConfig(Strict):
    """A generated set of patients and foods whose relevance follows known diet rules."""

    pairs: int = Field(10_000, ge=100, le=10_000_000)
    """Relevant pairs over all users."""
    users: int = Field(0, ge=0)
    """0 makes one per 10 pairs, at least 60."""
    foods: int = Field(0, ge=0)
    """0 makes one per 25 pairs, at least 80 and at most 5,000."""
    picture_size: int = Field(48, ge=16, le=1024)
    """Width and height of the rendered pictures, pixels."""
    guidelines: int = Field(1, ge=1)
    """Sets of diet rules, of which every patient keeps to one: from the second on the conditions' rules are
    interchanged, so that patients of one condition contradict each other."""
    told: bool = False
    """Tells among the attributes also what texts and pictures tell: levels of nutrients and cuisine of foods,
    conditions, guideline and favourite cuisine of patients. A model of attributes alone needs no encoders then."""
    missing: float = Field(0.05, ge=0, le=0.9)
    """Share of texts, pictures and attributes that are left out."""
    seed: int = 0
    """Of all that is drawn."""
    shards: int = Field(8, ge=1)
    """Parts that tasks write apart."""

    @property
    def num_users(self) -> int:
        """How many users are generated."""
        return self.users or max(self.pairs // 10, 60)

    @property
    def num_foods(self) -> int:
        """How many foods are generated."""
        return self.foods or min(max(self.pairs // 25, 80), 5_000)


class PlantedFood(Source):
    """Patients and foods."""

    Config = FoodConfig
    config: FoodConfig

    def open(self, place: Workplace) -> RawData:
        """Generate the tables, shard by shard, and return where they are; those of a job that was stopped are kept."""
        config, storage = self.config, place.storage
        generate_once(place, config, shard_tables, "food")
        tables = {name: ForeignTable((storage.uri_of(name),)) for name in ("users", "items", "pairs")}
        users, items = (TOLD_OF_USERS, TOLD_OF_ITEMS) if config.told else ((), ())
        return RawData(
            records=RecordTable(table=tables["pairs"]),
            users=EntityTable(
                table=tables["users"], id="user", text=("text",), attributes=("age", "gender", "activity", *users),
                group="group", tags="avoid", others=("needs_image", "truth"),
            ),
            items=EntityTable(
                table=tables["items"], id="item", title="title", text=("text",), image="image",
                attributes=("price", *items),
                group="class", tags="contains", others=("truth",),
            ),
            unseen=("user", "item"),
            synthetic=True,
            generated=True,
        )  # fmt: skip


def shard_tables(config: FoodConfig, shard: int) -> dict[str, pa.Table]:
    """Return one shard's users, their pairs, and foods."""
    users, pairs = shard_rows(config, shard)
    return {
        "users": users,
        "pairs": pairs,
        "items": food_rows(config, *part_bounds(config.num_foods, config.shards, shard)),
    }


@dataclass(frozen=True, slots=True)
class Condition:
    """What a condition asks of food, and how people speak of it."""

    name: str
    nutrient: str
    wants: str
    phrases: tuple[str, ...]


CONDITIONS = (
    Condition("hypertension", "sodium", LOW, ("high blood pressure", "hypertension", "a blood pressure of 160")),
    Condition("low blood pressure", "sodium", HIGH, ("low blood pressure", "dizzy spells on standing up")),
    Condition("anemia", "iron", HIGH, ("anemia", "low hemoglobin", "tired and pale from lack of iron")),
    Condition("hemochromatosis", "iron", LOW, ("hemochromatosis", "too much iron in the blood")),
    Condition("constipation", "fibre", HIGH, ("constipation", "a sluggish bowel", "trouble with digestion")),
    Condition("crohn's disease", "fibre", LOW, ("crohn's disease", "an inflamed bowel in a flare")),
    Condition("kidney disease", "potassium", LOW, ("chronic kidney disease", "weak kidneys", "dialysis")),
    Condition("diuretics", "potassium", HIGH, ("water tablets every day", "diuretics", "cramps in the calves")),
    Condition("diabetes", "sugar", LOW, ("type 2 diabetes", "high blood glucose", "diabetes since 2015")),
    Condition("endurance sport", "sugar", HIGH, ("training for a marathon", "long rides on the bicycle")),
    Condition("high cholesterol", "saturated fat", LOW, ("high cholesterol", "a raised LDL", "a stent in the heart")),
    Condition("underweight", "saturated fat", HIGH, ("being underweight", "lost a lot of weight lately")),
    Condition("obesity", "portion", LOW, ("obesity", "a BMI of 34", "wants to lose weight")),
    Condition("pregnancy", "portion", MIDDLE, ("a pregnancy in the sixth month", "expecting a child")),
)
ALLERGENS = ("peanut", "gluten", "milk", "egg", "fish", "soy")
WORDS = {
    "sodium": ("unsalted fresh", "lightly-seasoned", "salted", "cured soy-glazed", "brined pickled"),
    "iron": ("apple rice", "turnip pear", "oats egg-yolk", "lentils beef", "liver clams"),
    "fibre": ("strained peeled", "white-flour", "mixed-grain", "wholemeal beans", "bran chickpeas"),
    "potassium": ("cabbage cranberry", "cucumber berries", "carrot", "tomato spinach", "banana potato"),
}
"""Words by nutrient and level."""
CUISINES = ("italian", "mexican", "indian", "chinese", "french", "greek", "thai", "moroccan")
DISHES = ("bowl", "stew", "bake", "salad", "soup", "wrap", "curry", "plate")
FILLERS = ("Lives alone and cooks every evening.", "Works in shifts.", "Likes to eat early.", "Has two children.",
           "Walks the dog twice a day.", "Eats out on Fridays.", "Does not drink.", "Has a small kitchen.")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Foods:
    """What is true of the foods; identical wherever it is made from the same config."""

    level_IN: np.ndarray
    popularity_I: np.ndarray
    contains_IA: np.ndarray
    cuisine_I: np.ndarray


def foods(config: FoodConfig) -> Foods:
    """Return the truth of all foods."""
    rng = generator(config.seed, "foods")
    count = config.num_foods
    return Foods(
        rng.integers(0, LEVELS, (count, len(NUTRIENTS))),
        rng.standard_normal(count),
        rng.random((count, len(ALLERGENS))) < 0.15,
        rng.integers(0, len(CUISINES), count),
    )


def food_rows(config: FoodConfig, first: int, last: int) -> pa.Table:
    """Return foods `first` to `last` as rows: item, title, text, image, class, contains, price, truth."""
    truth = foods(config)
    columns: dict[str, list[object]] = {
        name: [] for name in ("item", "title", "text", "image", "class", "contains", "price")
    }
    for i in range(first, last):
        rng = generator(config.seed, "food", i)
        cuisine = CUISINES[truth.cuisine_I[i]]
        level = dict(zip(NUTRIENTS, truth.level_IN[i].tolist(), strict=True))
        words = [str(rng.choice(WORDS[name][level[name]].split())) for name in TOLD]
        rng.shuffle(words)
        title = f"{cuisine} {DISHES[int(rng.integers(len(DISHES)))]} no. {i + 1}"
        kept = rng.random(3) >= config.missing
        contains = [a for a, inside in zip(ALLERGENS, truth.contains_IA[i], strict=True) if inside]
        columns["item"].append(f"f{i + 1}")
        columns["title"].append(title)
        columns["text"].append(f"{title}: {', '.join(words)}" if kept[0] else None)
        columns["image"].append(picture(config, level, rng) if kept[1] else None)
        columns["class"].append(cuisine)
        columns["contains"].append(contains)
        columns["price"].append(float(np.round(rng.gamma(4, 3), 2)) if kept[2] else None)
    columns["truth"] = list(item_truth(truth)[first:last])
    types = {"image": pa.binary(), "contains": pa.list_(pa.string()), "price": pa.float32(), "truth": VECTOR}
    if config.told:
        values = (list(columns["class"]), *truth.level_IN[first:last].T.astype(float).tolist())
        columns |= dict(zip(TOLD_OF_ITEMS, values, strict=True))
        types |= dict.fromkeys(TOLD_OF_ITEMS[1:], pa.float32())
    return pa.table({name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()})


def picture(config: FoodConfig, level: dict[str, int], rng: np.random.Generator) -> bytes:
    """Return a JPEG of a dish: its hue tells sugar, drops tell fat, its size the portion; the rest is noise."""
    scale = 2
    size = config.picture_size * scale
    table = tuple(int(c) for c in rng.integers(90, 200, 3))
    image = Image.new("RGB", (size, size), table)
    draw = ImageDraw.Draw(image)
    x, y = (size / 2 + rng.uniform(-0.04, 0.04) * size for _ in range(2))
    plate = 0.45 * size
    draw.ellipse((x - plate, y - plate, x + plate, y + plate), fill=(245, 245, 240))
    radius = size * (0.12 + 0.065 * level["portion"])
    hue = 0.33 - 0.33 * level["sugar"] / (LEVELS - 1) + rng.uniform(-0.02, 0.02)  # from green to red
    fill = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, 0.85, rng.uniform(0.6, 0.8)))
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    for _ in range(4 * level["saturated fat"]):
        angle, distance = rng.uniform(0, 2 * np.pi), radius * 0.8 * rng.random() ** 0.5
        a, b, drop = x + distance * np.cos(angle), y + distance * np.sin(angle), 0.025 * size
        draw.ellipse((a - drop, b - drop, a + drop, b + drop), fill=(255, 250, 160))
    stream = io.BytesIO()
    image.resize((config.picture_size, config.picture_size), Image.Resampling.BOX).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def shard_rows(config: FoodConfig, shard: int) -> tuple[pa.Table, pa.Table]:
    """Return one shard's users with their truth, and its relevant pairs (user, item)."""
    truth = foods(config)
    rng = generator(config.seed, "patients", shard)
    first, last = part_bounds(config.num_users, config.shards, shard)
    users, pairs = [], []
    order_GC, kept = rules(config), generator(config.seed, "guidelines", shard)
    for start in range(first, last, USERS_PER_DRAW):
        numbers = np.arange(start, min(start + USERS_PER_DRAW, last))
        has_UC = _conditions(len(numbers), rng)
        avoid_UA = rng.random((len(numbers), len(ALLERGENS))) < 0.12
        likes_U = rng.integers(0, len(CUISINES), len(numbers))
        guideline_U = kept.integers(0, config.guidelines, len(numbers))
        rule_UC = np.zeros_like(has_UC)
        np.put_along_axis(rule_UC, order_GC[guideline_U], has_UC, axis=1)
        users.append(_user_rows(config, numbers, has_UC, rule_UC, guideline_U, avoid_UA, likes_U, rng))
        logit_UI = user_truth(rule_UC, likes_U) @ item_truth(truth).T
        logit_UI[(avoid_UA.astype(np.float32) @ truth.contains_IA.T.astype(np.float32)) > 0] = -np.inf
        pairs.append(_draw(config, numbers, logit_UI, rng))
    return pa.concat_tables(users), pa.concat_tables(pairs)


def rules(config: FoodConfig) -> np.ndarray:
    """Return, for each guideline, whose condition's rule each condition has, (G, C): the first one's are their own."""
    rng = generator(config.seed, "rules")
    order_GC = np.tile(np.arange(len(CONDITIONS)), (config.guidelines, 1))
    return np.concatenate([order_GC[:1], rng.permuted(order_GC[1:], axis=1)])


def suits(level_IN: np.ndarray) -> np.ndarray:
    """Return how well each food suits each condition, float32 in [0, 1], (I, C)."""
    columns = []
    for condition in CONDITIONS:
        share = level_IN[:, NUTRIENTS.index(condition.nutrient)] / (LEVELS - 1)
        columns.append({LOW: 1 - share, HIGH: share, MIDDLE: 1 - 2 * np.abs(share - 0.5)}[condition.wants])
    return np.stack(columns, 1).astype(np.float32)


def item_truth(truth: Foods) -> np.ndarray:
    """Return what decides about foods, float32 (I, T): how they suit each condition, their cuisine, popularity."""
    cuisine_IN = np.eye(len(CUISINES))[truth.cuisine_I]
    return np.hstack([suits(truth.level_IN), cuisine_IN, truth.popularity_I[:, None]]).astype(np.float32)


def user_truth(has_UC: np.ndarray, likes_U: np.ndarray) -> np.ndarray:
    """Return how much of it counts for each user, float32 (U, T).

    The product with `item_truth` is the log-odds that a food is relevant, allergies aside.
    """
    share_UC = has_UC / has_UC.sum(1, keepdims=True)
    always_U1 = np.full((len(has_UC), 1), POPULARITY)
    return np.hstack([MATCH * share_UC, CUISINE * np.eye(len(CUISINES))[likes_U], always_U1]).astype(np.float32)


def _conditions(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return which conditions each user has, (count, C) bool: one or two, never two that want the same nutrient."""
    order = rng.random((count, len(CONDITIONS))).argsort(axis=1)
    both = rng.random(count) < 0.4
    nutrient = np.array([NUTRIENTS.index(c.nutrient) for c in CONDITIONS])
    has = np.zeros((count, len(CONDITIONS)), dtype=bool)
    rows = np.arange(count)
    has[rows, order[:, 0]] = True
    second = both & (nutrient[order[:, 0]] != nutrient[order[:, 1]])
    has[rows[second], order[second, 1]] = True
    return has


def _user_rows(
    config: FoodConfig,
    numbers: np.ndarray,
    has_UC: np.ndarray,
    rule_UC: np.ndarray,
    guideline_U: np.ndarray,
    avoid_UA: np.ndarray,
    likes_U: np.ndarray,
    rng: np.random.Generator,
) -> pa.Table:
    seen = np.array([c.nutrient in SEEN for c in CONDITIONS])
    columns: dict[str, list[object]] = {
        name: [] for name in ("user", "text", "age", "gender", "activity", "avoid", "group", "needs_image")
    }
    columns |= {name: [] for name in TOLD_OF_USERS} if config.told else {}
    each = zip(numbers.tolist(), has_UC, rule_UC, guideline_U.tolist(), avoid_UA, likes_U.tolist(), strict=True)
    for number, has_C, rule_C, guideline, avoid_A, likes in each:
        mine = [CONDITIONS[c] for c in np.flatnonzero(has_C)]
        age, gender = int(rng.integers(18, 90)), ("female", "male")[int(rng.integers(2))]
        told = " and ".join(str(rng.choice(c.phrases)) for c in mine)
        person = "woman" if gender == "female" else "man"
        text = f"A {age} year old {person}: {told}. Loves {CUISINES[likes]} food. {rng.choice(FILLERS)}"
        if config.guidelines > 1:
            text += f" Keeps to guideline {guideline}."
        kept = rng.random(3) >= config.missing
        columns["user"].append(f"p{number + 1}")
        columns["text"].append(text if kept[0] else None)
        columns["age"].append(float(age) if kept[1] else None)
        columns["gender"].append(gender if kept[2] else None)
        columns["activity"].append(("sedentary", "moderate", "active")[int(rng.integers(3))])
        columns["avoid"].append([a for a, out in zip(ALLERGENS, avoid_A, strict=True) if out])
        columns["group"].append(mine[0].name)
        columns["needs_image"].append(bool((rule_C & seen).any()))
        if config.told:
            second = mine[1].name if len(mine) > 1 else "none"
            values = (mine[0].name, second, f"guideline {guideline}", CUISINES[likes])
            for name, value in zip(TOLD_OF_USERS, values, strict=True):
                columns[name].append(value)
    columns["truth"] = list(user_truth(rule_UC, likes_U))
    types = {"avoid": pa.list_(pa.string()), "age": pa.float32(), "needs_image": pa.bool_(), "truth": VECTOR}
    return pa.table({name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()})


def _draw(config: FoodConfig, numbers: np.ndarray, logit_UI: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """Return the relevant pairs of some users: Gumbel top-n draws without repeats; `logit_UI` is overwritten."""
    logit_UI -= np.log(np.maximum(rng.standard_exponential(logit_UI.shape, dtype=np.float32), 1e-30))
    # Cumulative rounding, so that the pairs of all users add up to what was asked for.
    edge = np.floor(np.arange(config.num_users + 1) * config.pairs / config.num_users).astype(np.int64)
    count = np.minimum(np.diff(edge)[numbers], np.isfinite(logit_UI).sum(1))
    order = np.argsort(-logit_UI, axis=1)[:, : max(int(count.max()), 1)]
    user = np.repeat(numbers, count)
    item = order[np.arange(order.shape[1]) < count[:, None]]
    return pa.table(
        {"user": np.char.add("p", (user + 1).astype(str)), "item": np.char.add("f", (item + 1).astype(str))}
    )
