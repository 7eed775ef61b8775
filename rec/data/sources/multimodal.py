"""Public sets with texts and pictures, rewritten as the tables that `rec.data.pairs` reads.

hummus      a folder with recipes.json and all_ratings.csv: Food.com recipes with nutrition, and real ratings
recipes     public_domain_recipes/ beside patients/: photographed recipes, patients, and labels made by rules: synthetic
movielens   the official ml-100k folder; `images` a folder of posters by movie id, beside it a table of overviews
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from rec.data.prepared import write_table
from rec.data.sources.metadata import fill, read_items
from rec.errors import DataError
from rec.keys_pairs import PairColumns, PairsConfig
from rec.seeds import generator
from rec.storage import Storage

ALLERGEN_WORDS = {
    "peanuts": ("peanut",),
    "nuts": ("almond", "walnut", "pecan", "cashew", "hazelnut", "pistachio", "peanut"),
    "gluten": ("flour", "bread", "pasta", "spaghetti", "noodle", "barley", "couscous", "cracker", "beer", "tortilla",
               "macaroni", "soy sauce", "breadcrumb", "oats", "biscuit", "pastry"),
    "milk": ("milk", "butter", "cheese", "cream", "yogurt", "yoghurt", "parmesan", "cheddar", "mozzarella"),
    "eggs": ("egg", "mayonnaise"),
    "fish": ("fish", "salmon", "tuna", "anchov", "cod", "shrimp", "prawn", "crab", "oyster"),
    "soy": ("soy", "tofu"),
}  # fmt: skip
"""Words in ingredients that tell what a recipe contains; a rule of thumb, no replacement for a label."""
NUTRITION = ("calories", "totalFat", "saturatedFat", "sugars", "sodium", "protein", "duration")
SALT = ("salt", "soy sauce", "bacon", "sausage", "ham", "cheese", "bouillon", "stock", "anchov", "olives")
SUGAR = ("sugar", "honey", "syrup", "chocolate", "jam", "caramel", "molasses")


def rewrite(config: PairsConfig, root: str) -> PairsConfig:
    """Write a public set as tables below `root`/raw and return the config that reads them.

    Raises:
        DataError: a file is missing or has another form.
    """
    storage = Storage(root)
    storage.delete("raw")
    assert config.items is not None
    folder = Path(config.items)
    makers: Mapping[str, Callable[[Path, PairsConfig], tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]]] = {
        "hummus": _hummus, "recipes": _recipes, "movielens": _movielens
    }  # fmt: skip
    try:
        users, items, pairs = makers[config.kind](folder, config)
    except (OSError, KeyError, ValueError, SyntaxError) as error:
        raise DataError(f"{folder}: not readable as {config.kind!r} ({type(error).__name__}: {error})") from error
    for name, frame in (("users", users), ("items", items), ("pairs", pairs)):
        write_table(storage, f"raw/{name}.parquet", pa.Table.from_pandas(frame, preserve_index=False))
    raw = f"{root.rstrip('/')}/raw"
    columns = COLUMNS[config.kind]
    paths = {"pairs": (f"{raw}/pairs.parquet",), "users": f"{raw}/users.parquet", "items": f"{raw}/items.parquet"}
    return config.model_copy(update={"kind": "table", "columns": columns, **paths})


def contents(ingredients: str) -> list[str]:
    """Return what a list of ingredients seems to contain, by words."""
    text = ingredients.lower()
    return [name for name, words in ALLERGEN_WORDS.items() if any(word in text for word in words)]


def _hummus(folder: Path, _: PairsConfig) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rows = []
    for recipe in json.loads((folder / "recipes.json").read_text(encoding="utf-8")):
        # Fields that hold Python's own notation; a few recipes have no number of some kind.
        parts = _literal(recipe["ingredients"], {})
        names = [str(name) for group in parts.values() for name, _ in group]
        tags = _literal(recipe["tags"], [])
        text = f"{recipe['title']}. {' '.join(t.replace('-', ' ') for t in tags)}. {', '.join(names)}"
        nutrition = {key: recipe[key] for key in NUTRITION}
        rows.append(
            {
                "item": str(recipe["recipe_id"]),
                "title": recipe["title"],
                "text": text,
                "class": recipe["health_category"],
            }
            | nutrition
            | {"contains": contents(", ".join(names))}
        )
    ratings = pd.read_csv(folder / "all_ratings.csv", dtype={"member_id": str, "recipe_id": str})
    pairs = ratings.rename(columns={"member_id": "user", "recipe_id": "item"})[["user", "item", "rating"]]
    # 1,727 ratings are 2.5 in a scale of whole numbers, meaning unknown.
    pairs = pairs[pairs["rating"] != 2.5]
    users = pd.DataFrame({"user": sorted(pairs["user"].unique(), key=int)})
    return users, pd.DataFrame(rows), pairs


def _literal(text: Any, empty: Any) -> Any:
    """Return the value of Python's notation, with what is not a number (`nan`) as None."""
    return ast.literal_eval(re.sub(r"\bnan\b", "None", text)) if isinstance(text, str) and text else empty


def _movielens(folder: Path, config: PairsConfig) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    films = read_items(str(folder / "u.item"))
    if config.images is not None:
        for table in sorted(Path(config.images).parent.glob("*.csv")):
            films = fill(films, read_items(str(table)))
    films = films.fillna("")
    items = pd.DataFrame({"item": films["item"], "title": films["title"]})
    plot = films.get("plot", "")
    items["text"] = films["title"] + ". " + films["genres"] + ". " + plot
    items["class"] = films["genres"].str.split(r"[ |,]").str[0]
    items["year"] = pd.to_numeric(films["year"], errors="coerce")
    posters = Path(config.images).absolute() if config.images is not None else None
    paths = [None if posters is None else posters / f"{item}.jpg" for item in items["item"]]
    items["image"] = [str(path) if path is not None and path.exists() else None for path in paths]
    names = ["user", "age", "gender", "occupation", "zip"]
    users = pd.read_csv(folder / "u.user", sep="|", names=names, dtype={"user": str}).drop(columns="zip")
    gender = users["gender"].map({"F": "woman", "M": "man"})
    users["text"] = "A " + users["age"].astype(str) + " year old " + gender + ", " + users["occupation"]
    ratings = pd.read_csv(folder / "u.data", sep="\t", names=["user", "item", "rating", "time"], dtype=str)
    return users, items, ratings[["user", "item", "rating"]].astype({"rating": float})


def _recipes(folder: Path, config: PairsConfig) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Photographed recipes for patients; which are relevant is drawn from rules, so every label is synthetic."""
    base = folder / "public_domain_recipes"
    rows = []
    for line in (base / "recipes.jsonl").read_text(encoding="utf-8").splitlines():
        recipe = json.loads(line)
        if not recipe["ingredients"]:
            continue
        ingredients = ", ".join(recipe["ingredients"])
        text = f"{recipe['title']}. {' '.join(recipe['tags'])}. {ingredients}"
        photo = next((p for name in recipe["images"] if (p := base / "images" / Path(str(name)).name).exists()), None)
        rows.append(
            {
                "item": recipe["slug"],
                "title": recipe["title"],
                "text": text,
                "class": (recipe["tags"] or ["other"])[0],
                "image": None if photo is None else str(photo.absolute()),
                "contains": contents(ingredients),
            }
        )
    items = pd.DataFrame(rows).drop_duplicates("item")
    if config.drop_without_image:
        items = items[items["image"].notna()].reset_index(drop=True)
    patients = pd.read_csv(folder / "patients" / "diet_recommendations_dataset.csv", keep_default_na=False)
    diseases = pd.read_csv(folder / "patients" / "Diseases_Foods_Dataset_Real.csv", keep_default_na=False)
    users = _patients(patients)
    return users, items, _synthetic_pairs(users, items, diseases, config)


def _patients(patients: pd.DataFrame) -> pd.DataFrame:
    """Return patients with a sentence each."""
    rows = []
    for p in patients.to_dict("records"):
        disease = "no known disease" if p["Disease_Type"] == "None" else f"{p['Severity']} {p['Disease_Type']}".lower()
        wish = "" if p["Dietary_Restrictions"] == "None" else f" Diet: {p['Dietary_Restrictions'].replace('_', ' ')}."
        avoid = {"Peanuts": ["peanuts"], "Gluten": ["gluten"]}.get(p["Allergies"], [])
        rows.append(
            {
                "user": p["Patient_ID"],
                "text": f"A {p['Age']} year old {p['Gender'].lower()} patient with {disease}.{wish}",
                "age": float(p["Age"]),
                "gender": p["Gender"],
                "BMI": float(p["BMI"]),
                "activity": p["Physical_Activity_Level"],
                "disease": p["Disease_Type"],
                "restriction": p["Dietary_Restrictions"],
                "avoid": avoid,
            }
        )
    return pd.DataFrame(rows)


def _synthetic_pairs(
    users: pd.DataFrame, items: pd.DataFrame, diseases: pd.DataFrame, config: PairsConfig
) -> pd.DataFrame:
    """Draw `food.pairs` relevant pairs: recommended foods count for a recipe, others and salt or sugar against."""
    texts = [text.lower() for text in items["text"]]
    good, bad = (
        {name: _words(group[column]) for name, group in diseases.groupby("Disease")}
        for column in ("Recommended Foods", "Foods/Ingredients Not Recommended")
    )
    salt, sugar = _counts(texts, SALT), _counts(texts, SUGAR)
    rng = generator(config.food.seed, "synthetic pairs")
    chosen = rng.permutation(len(users))[: max(1, config.food.pairs // 3)]
    found: list[dict[str, Any]] = []
    for number, u in enumerate(chosen):
        user = users.iloc[u]
        score = _counts(texts, good.get(user["disease"], set())) - _counts(texts, bad.get(user["disease"], set()))
        score = (
            score - (user["disease"] == "Hypertension") * salt - (user["disease"] in ("Diabetes", "Obesity")) * sugar
        )
        score = score - (user["restriction"] == "Low_Sodium") * salt - (user["restriction"] == "Low_Sugar") * sugar
        logit = score + rng.gumbel(size=len(items))
        logit[[bool(set(user["avoid"]) & set(c)) for c in items["contains"]]] = -np.inf
        share = config.food.pairs * (number + 1) // len(chosen) - config.food.pairs * number // len(chosen)
        found += [{"user": user["user"], "item": items["item"].iloc[i]} for i in np.argsort(-logit)[:share]]
    return pd.DataFrame(found)


def _words(column: pd.Series[Any]) -> set[str]:
    words = {word.strip().lower().rstrip("s") for cell in column for word in re.split(r"[,;]", cell)}
    return {part for word in words if word for part in (word, word.split()[-1])}


def _counts(texts: list[str], words: Any) -> np.ndarray:
    return np.array([sum(word in text for word in words) for text in texts], dtype=np.float64)


COLUMNS = {
    "hummus": PairColumns(
        relevance="rating", item_text=("text",), title="title", item_attributes=NUTRITION, item_class="class",
        contains="contains",
    ),
    "recipes": PairColumns(
        user_text=("text",), item_text=("text",), title="title", image="image", item_class="class",
        user_attributes=("age", "gender", "BMI", "activity"), user_group="disease", avoid="avoid", contains="contains",
    ),
    "movielens": PairColumns(
        relevance="rating", user_text=("text",), item_text=("text",), title="title", image="image", item_class="class",
        user_attributes=("age", "gender", "occupation"), item_attributes=("year",), user_group="occupation",
    ),
}  # fmt: skip
FOOD = PairColumns(
    user_text=("text",), item_text=("text",), title="title", image="image", item_class="class",
    user_attributes=("age", "gender", "activity"), item_attributes=("price",), user_group="group", avoid="avoid",
    contains="contains",
)  # fmt: skip
"""The columns of generated food."""
