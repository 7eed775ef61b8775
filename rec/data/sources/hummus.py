"""HUMMUS: Food.com recipes with nutrition and real ratings, from recipes.json and all_ratings.csv."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from rec.data.schema import EntityTable, RawData, RecordTable, Source, Workplace
from rec.data.sources.recipes import contents
from rec.errors import DataError
from rec.strict import Strict

NUTRITION = ("calories", "totalFat", "saturatedFat", "sugars", "sodium", "protein", "duration")


class HummusConfig(Strict):
    """The keys of `[data.read]`."""

    folder: str
    """Folder with recipes.json and all_ratings.csv."""


class Hummus(Source):
    """Recipes and ratings; users are known by their ratings alone."""

    Config = HummusConfig
    config: HummusConfig

    def open(self, place: Workplace) -> RawData:
        """Write the tables and return where they are."""
        folder = Path(self.config.folder).absolute()
        try:
            users, items, pairs, unclear = _tables(folder)
        except (OSError, KeyError, ValueError, SyntaxError) as error:
            raise DataError(f"{folder}: not readable as HUMMUS ({type(error).__name__}: {error})") from error
        tables = {
            name: place.write_frame(name, frame)
            for name, frame in (("users", users), ("items", items), ("pairs", pairs))
        }
        return RawData(
            records=RecordTable(table=tables["pairs"], rating="rating"),
            users=EntityTable(table=tables["users"], id="user"),
            items=EntityTable(
                table=tables["items"], id="item", title="title", text=("text",), attributes=NUTRITION, group="class",
                tags="contains",
            ),
            unseen=("user", "item"),
            dropped={"record with a rating of unknown meaning": unclear},
        )  # fmt: skip


def _tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, int]:
    """Return users, recipes and ratings, and how many ratings are left out."""
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
    unclear = pairs["rating"] == 2.5
    pairs = pairs[~unclear]
    users = pd.DataFrame({"user": sorted(pairs["user"].unique(), key=int)})
    return users, pd.DataFrame(rows), pairs, int(unclear.sum())


def _literal(text: Any, empty: Any) -> Any:
    """Return the value of Python's notation, with what is not a number (`nan`) as None."""
    return ast.literal_eval(re.sub(r"\bnan\b", "None", text)) if isinstance(text, str) and text else empty
