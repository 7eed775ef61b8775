"""Small tables of one's own, and the configs that read them."""

from pathlib import Path
from typing import Any

import pandas as pd

from rec.data.config import DataConfig
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from tests.unit.data.test_images import encoded

ENCODE = {"image": {"size": 8, "thumbnail": 0}, "shard_items": 4}


def quiet(_: str) -> None:
    """Say nothing."""


def write_events(path: Path, users: int = 6, items: int = 9) -> Path:
    """Write events with times, 5 to 7 per user."""
    frame = pd.DataFrame(
        [(f"u{u}", f"i{(u + k) % items}", 100 + k) for u in range(users) for k in range(5 + u % 3)],
        columns=["who", "what", "when"],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return path


def own(root: Path, events: Path, *, read: dict[str, Any] | None = None, **sections: Any) -> DataConfig:
    """Return the config that reads such events; `read` changes keys of the source, `sections` other keys of [data]."""
    columns = {"user": "who", "item": "what", "time": "when"}
    table = {"records": [str(events)], "columns": columns} | (read or {})
    return DataConfig.model_validate({"root": str(root), "read": table, **sections})


def own_tables(
    folder: Path, *, columns: dict[str, Any] | None = None, photo: Any = None, words: Any = None, **encode: Any
) -> Any:
    """Write tables of 12 users, 10 items with a picture each and 60 ratings; return the sections of [data] for them."""
    items = pd.DataFrame({"sku": [f"i{n}" for n in range(10)]})
    items["words"] = [f"salt number {n}" for n in range(10)] if words is None else words
    items["photo"] = [encoded() for _ in range(10)] if photo is None else photo
    items.to_parquet(folder / "items.parquet")
    users = pd.DataFrame({"who": [f"u{n}" for n in range(12)], "age": [20.0 + n for n in range(12)]})
    users.assign(sex=["f", "m"] * 6, story=["likes salt"] * 12).to_csv(folder / "users.csv", index=False)
    pairs = [(f"u{u}", f"i{(u + d) % 10}", 5) for u in range(12) for d in range(5)]
    pd.DataFrame(pairs, columns=["who", "sku", "stars"]).to_parquet(folder / "pairs.parquet")
    names = {
        "user": "who", "item": "sku", "rating": "stars", "item_text": ["words"], "image": "photo",
        "user_text": ["story"], "user_attributes": ["age", "sex"], **(columns or {}),
    }  # fmt: skip
    read = {"records": [f"{folder}/pairs.parquet"], "items": f"{folder}/items.parquet", "users": f"{folder}/users.csv"}
    return {
        "read": read | {"columns": names},
        "filter": {"minimum_rating": 4.0, "unseen": ["user", "item"]},
        "split": {"protocol": "ratio"},
        "encode": ENCODE | encode,
    }


def prepared(root: Path, sections: dict[str, Any], say: Any = quiet, view: str = "") -> Prepared:
    """Return the data set made from sections of [data]."""
    data = prepare(DataConfig.model_validate({"root": str(root), **sections}), InProcess(), say)
    return data.seen_as(view) if view else data
