"""What is known of items as text."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from rec.data.sources.metadata import FIELDS, named


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Return all columns of items but pictures as text, empty where nothing is known."""
    kept = {name: frame[name] for name in frame.columns if name not in ("image", "image present")}
    text = {name: column.astype(object).where(column.notna(), "").astype(str) for name, column in kept.items()}
    return pd.DataFrame(text).drop(columns=["item"], errors="ignore").rename(columns={"id": "item"})


def facts_of(frame: pd.DataFrame, fields: Sequence[str]) -> list[dict[str, str]]:
    """Return what is known of some items by field, "" where it is unknown.

    A field is a column as it is, or what every film has under whichever name its column goes by.
    """
    text = as_text(frame)
    films = named(text)
    columns = [(films if name in FIELDS else text)[name].tolist() for name in fields]
    return [dict(zip(fields, values, strict=True)) for values in zip(*columns, strict=True)]
