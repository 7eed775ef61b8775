"""Photographed public-domain recipes for patients; which are relevant is drawn from rules: every label is synthetic."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from rec.data.schema import EntityTable, RawData, RecordTable, Source, Workplace
from rec.errors import DataError
from rec.seeds import generator
from rec.strict import Strict

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
SALT = ("salt", "soy sauce", "bacon", "sausage", "ham", "cheese", "bouillon", "stock", "anchov", "olives")
SUGAR = ("sugar", "honey", "syrup", "chocolate", "jam", "caramel", "molasses")


class RecipesConfig(Strict):
    """The keys of `[data.read]`."""

    folder: str
    """Folder that holds public_domain_recipes/ and patients/."""
    photographed: bool = False
    """Leaves out recipes without a picture, as the paper did."""
    pairs: int = Field(10_000, ge=100, le=10_000_000)
    """Relevant pairs over all patients."""
    seed: int = 0
    """Of the pairs that are drawn."""


class Recipes(Source):
    """Recipes, patients and rules."""

    Config = RecipesConfig
    config: RecipesConfig

    def open(self, place: Workplace) -> RawData:
        """Write the tables and return where they are."""
        folder = Path(self.config.folder).absolute()
        try:
            users, items, pairs = _tables(self.config)
        except (OSError, KeyError, ValueError, SyntaxError) as error:
            raise DataError(f"{folder}: not readable as 'recipes' ({type(error).__name__}: {error})") from error
        tables = {
            name: place.write_frame(name, frame)
            for name, frame in (("users", users), ("items", items), ("pairs", pairs))
        }
        return RawData(
            records=RecordTable(table=tables["pairs"]),
            users=EntityTable(
                table=tables["users"], id="user", text=("text",), attributes=("age", "gender", "BMI", "activity"),
                group="disease", tags="avoid",
            ),
            items=EntityTable(
                table=tables["items"], id="item", title="title", text=("text",), image="image", group="class",
                tags="contains",
            ),
            unseen=("user", "item"),
            synthetic=True,
        )  # fmt: skip


def contents(ingredients: str) -> list[str]:
    """Return what a list of ingredients seems to contain, by words."""
    text = ingredients.lower()
    return [name for name, words in ALLERGEN_WORDS.items() if any(word in text for word in words)]


def _tables(config: RecipesConfig) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Photographed recipes for patients; which are relevant is drawn from rules, so every label is synthetic."""
    folder = Path(config.folder)
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
    if config.photographed:
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
    users: pd.DataFrame, items: pd.DataFrame, diseases: pd.DataFrame, config: RecipesConfig
) -> pd.DataFrame:
    """Draw `food.pairs` relevant pairs: recommended foods count for a recipe, others and salt or sugar against."""
    texts = [text.lower() for text in items["text"]]
    good, bad = (
        {name: _words(group[column]) for name, group in diseases.groupby("Disease")}
        for column in ("Recommended Foods", "Foods/Ingredients Not Recommended")
    )
    salt, sugar = _counts(texts, SALT), _counts(texts, SUGAR)
    rng = generator(config.seed, "synthetic pairs")
    chosen = rng.permutation(len(users))[: max(1, config.pairs // 3)]
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
        share = config.pairs * (number + 1) // len(chosen) - config.pairs * number // len(chosen)
        found += [{"user": user["user"], "item": items["item"].iloc[i]} for i in np.argsort(-logit)[:share]]
    return pd.DataFrame(found)


def _words(column: pd.Series[Any]) -> set[str]:
    words = {word.strip().lower().rstrip("s") for cell in column for word in re.split(r"[,;]", cell)}
    return {part for word in words if word for part in (word, word.split()[-1])}


def _counts(texts: list[str], words: Any) -> np.ndarray:
    return np.array([sum(word in text for word in words) for text in texts], dtype=np.float64)
