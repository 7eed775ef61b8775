"""Tags: what users avoid and items contain, as people write them, and which of them are the same."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pandas as pd

SEPARATOR = ";"


def tag_key(tag: str) -> str:
    """Return what equal tags have in common: neither case, surrounding space nor the way of writing accents counts."""
    composed = unicodedata.normalize("NFC", tag.strip())
    return unicodedata.normalize("NFC", composed.casefold())


def tags_of(cell: Any) -> list[str]:
    """Return the tags of a cell as written, without surrounding space: a list, or words between semicolons."""
    if isinstance(cell, np.ndarray | list | tuple | set):
        words = [str(word) for word in cell if not _missing(word)]
    else:
        words = [] if _missing(cell) else str(cell).split(SEPARATOR)
    return [word.strip() for word in words if word.strip()]


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or bool(value != value)
