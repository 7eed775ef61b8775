"""A small catalogue of films with ratings, as tables of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rec.data.items import HeldItems, Items
from rec.data.modalities.config import ModalitiesConfig
from rec.data.modalities.job import ModalityJob
from rec.data.runner import InProcess

HEAT = ["Heat", "1995", "Michael Mann", "Master thief Neil McCauley robs banks in Los Angeles; a detective hunts him."]
"""The facts of a film."""
PLOTS = ("A man goes home to his village.", "Two spies meet in Paris and talk.", "")


def films(count: int) -> pd.DataFrame:
    """Return films as a source has them; every third has no plot."""
    return pd.DataFrame(
        {
            "id": [f"f{n}" for n in range(count)],
            "title": [f"Film {n}" for n in range(count)],
            "year": [str(1950 + n % 60) for n in range(count)],
            "genres": [("Drama", "Musical", "Action")[n % 3] for n in range(count)],
            "plot": [PLOTS[n % 3] for n in range(count)],
        }
    )


def film_tables(folder: Path, count: int = 9, *, names: tuple[str, ...] = ("narrative", "pace")) -> dict[str, Any]:
    """Write films and 6 ratings of each of 8 users; return the sections of [data] for them."""
    films(count).to_csv(folder / "films.csv", index=False)
    rows = [(f"u{user}", f"f{(user + n) % count}", n) for user in range(8) for n in range(6)]
    pd.DataFrame(rows, columns=["user", "item", "time"]).to_csv(folder / "ratings.csv", index=False)
    columns = {"item_id": "id", "title": "title", "time": "time"}
    keep = ["year", "genres", "plot"]
    items = f"{folder}/films.csv"
    return {
        "read": {"records": [f"{folder}/ratings.csv"], "items": items, "columns": columns, "keep": keep},
        "filter": {"unseen": ["item"]},
        "text": {"modalities": list(names), "width": 8},
    }


def job_of(folder: Path, count: int = 20, *, items: Items | None = None, **keys: Any) -> ModalityJob:
    """Return the job of writing films' modalities; `keys` are those of [data.modalities]."""
    config = ModalitiesConfig.model_validate(keys)
    names = keys.get("templates") or ["narrative", "pace"]
    items = HeldItems(films(count)) if items is None else items
    counts = np.arange(len(items))
    return ModalityJob(config, items, counts, list(names), root=f"{folder}/data", runner=InProcess(), say=_quiet)


def _quiet(_: str) -> None:
    return None
