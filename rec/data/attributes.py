"""Attributes of users and items as numbers: fitted on training rows, the same for a table and for one request.

Numbers are scaled to mean 0 and deviation 1; any other column becomes one column per known value. What is missing is 0
and, where all attributes are, counts as absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rec.errors import DataError, RequestError

MAX_VALUES = 256


@dataclass(frozen=True, slots=True)
class Attribute:
    """One column: its mean and deviation, or its known values."""

    name: str
    mean: float = 0.0
    deviation: float = 1.0
    values: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Columns it becomes."""
        return len(self.values) or 1


class Attributes:
    """Columns in their order."""

    def __init__(self, columns: Sequence[Attribute]) -> None:
        self.columns = tuple(columns)

    @classmethod
    def fit(cls, frame: pd.DataFrame, names: Sequence[str]) -> Attributes:
        """Return the attributes of these rows, which should be those of training alone.

        Raises:
            DataError: a column is missing or has too many values to be told apart.
        """
        columns = []
        for name in names:
            if name not in frame:
                raise DataError(f"no column {name!r} for attributes; there are {', '.join(map(str, frame.columns))}")
            column = frame[name].dropna()
            number = pd.to_numeric(column, errors="coerce")
            if len(number) and number.notna().all() and column.dtype != bool:
                finite = number[np.isfinite(number)]
                columns.append(Attribute(name, float(finite.mean()), float(finite.std(ddof=0)) or 1.0))
                continue
            values = sorted(column.astype(str).unique())
            if len(values) > MAX_VALUES:
                raise DataError(f"attribute {name!r}: {len(values)} values that are no numbers, at most {MAX_VALUES}")
            columns.append(Attribute(name, values=tuple(values) or ("",)))
        return cls(columns)

    @property
    def width(self) -> int:
        """Numbers per row."""
        return sum(column.width for column in self.columns)

    def encode(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers (N, A) float32 and whether any attribute of a row is known (N,)."""
        parts, known = [np.zeros((len(frame), 0), np.float32)], np.zeros(len(frame), dtype=bool)
        for column in self.columns:
            given = frame[column.name]
            if column.values:
                text = given.astype(object).where(given.notna(), None)
                code = pd.Index(column.values).get_indexer(pd.Index([None if v is None else str(v) for v in text]))
                part = (code[:, None] == np.arange(len(column.values))).astype(np.float32)
                known |= code >= 0
            else:
                number = pd.to_numeric(given, errors="coerce").to_numpy(np.float64, na_value=np.nan)
                usable = np.isfinite(number)
                scaled = np.where(usable, (number - column.mean) / column.deviation, 0)
                part = np.clip(scaled, -5, 5).astype(np.float32)[:, None]
                known |= usable
            parts.append(part)
        return np.concatenate(parts, 1), known

    def encode_one(self, given: Mapping[str, Any]) -> tuple[np.ndarray, bool]:
        """Return the numbers (A,) of one request, and whether any is known.

        Raises:
            RequestError: an attribute is unknown, or its value is.
        """
        names = [column.name for column in self.columns]
        if unknown := sorted(given.keys() - set(names)):
            raise RequestError(f"attribute {unknown[0]!r} is not known; known: {', '.join(names) or 'none'}")
        for column in self.columns:
            value = given.get(column.name)
            if column.values and value is not None and str(value) not in column.values:
                raise RequestError(f"attribute {column.name!r}: {value!r}, expected one of {', '.join(column.values)}")
            if not column.values and value is not None and not isinstance(value, int | float):
                raise RequestError(f"attribute {column.name!r}: expected a number, got {value!r}")
        number, known = self.encode(pd.DataFrame([{name: given.get(name) for name in names}], columns=names))
        return number[0], bool(known[0])

    def to_json(self) -> str:
        """Return the columns as JSON."""
        return json.dumps([{f: getattr(c, f) for f in ("name", "mean", "deviation", "values")} for c in self.columns])

    @classmethod
    def from_json(cls, text: str) -> Attributes:
        """Return the columns that `to_json` wrote."""
        return cls([Attribute(**{**entry, "values": tuple(entry["values"])}) for entry in json.loads(text)])
