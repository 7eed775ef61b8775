"""Attributes of users and items as numbers: fitted on training rows, the same for a table and for one request.

Numbers, also as text, and times (as days) are scaled to mean 0 and deviation 1; any other column becomes one column per
known value. What is missing (null, NaN, NaT, an infinite number, no text, the text nan) is 0 and, where all attributes
are, counts as absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rec.data.cells import days, kind_of, numbers, words
from rec.errors import DataError, RequestError
from rec.json_text import json_text

MAX_VALUES = 256
LARGE, LARGE_SINGLE = 1e100, 1e15
"""Numbers from here on are scaled before their squares are taken, or are no longer taken as float32."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One column: its mean and deviation, or its known values."""

    name: str
    mean: float = 0.0
    deviation: float = 1.0
    values: tuple[str, ...] = ()
    times: bool = False
    """Whether its numbers are the days of times since 1970, or of lengths of time."""

    @property
    def width(self) -> int:
        """Columns it becomes."""
        return len(self.values) or 1

    def numbers(self, given: pd.Series[Any]) -> np.ndarray:
        """Return the numbers of a column that has no known values, NaN where there is none, (N,) float64."""
        return days(given) if self.times else numbers(given)

    def places(self, given: pd.Series[Any]) -> np.ndarray:
        """Return the place of each cell among the known values, -1 where it is none of them, (N,)."""
        place = {value: n for n, value in enumerate(self.values)}
        # Truths are true in JSON, True in a table, and TRUE in a file of text.
        truth = {value.casefold(): n for value, n in place.items() if value.casefold() in ("true", "false")}
        told = words(given)
        return np.array([-1 if w is None else place.get(w, truth.get(w.casefold(), -1)) for w in told], dtype=np.int64)


class Attributes:
    """Columns in their order."""

    def __init__(self, columns: Sequence[Attribute]) -> None:
        self.columns = tuple(columns)

    @classmethod
    def fit(cls, frame: pd.DataFrame, names: Sequence[str]) -> Attributes:
        """Return the attributes of these rows, which should be those of training alone.

        Raises:
            DataError: a column is missing, holds lists, or has too many values to be told apart.
        """
        columns = []
        for name in names:
            if name not in frame:
                raise DataError(f"no column {name!r} for attributes; there are {', '.join(map(str, frame.columns))}")
            columns.append(_fitted(name, frame[name]))
        return cls(columns)

    @property
    def width(self) -> int:
        """Numbers per row."""
        return sum(column.width for column in self.columns)

    def encode(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers (N, A) float32 and whether any attribute of a row is known (N,)."""
        parts, known = [np.zeros((len(frame), 0), np.float32)], np.zeros(len(frame), dtype=bool)
        for column in self.columns:
            if column.values:
                place = column.places(frame[column.name])
                parts.append((place[:, None] == np.arange(len(column.values))).astype(np.float32))
                known |= place >= 0
                continue
            number = column.numbers(frame[column.name])
            usable = np.isfinite(number)
            scaled = (np.where(usable, number, column.mean) - column.mean) / column.deviation
            parts.append(np.clip(scaled, -5, 5).astype(np.float32)[:, None])
            known |= usable
        return np.concatenate(parts, 1), known

    def encode_one(self, given: Mapping[str, Any]) -> tuple[np.ndarray, bool]:
        """Return the numbers (A,) of one request, and whether any is known: those of a table with the same values.

        Raises:
            RequestError: an attribute is unknown, or its value is.
        """
        names = [column.name for column in self.columns]
        if unknown := sorted(given.keys() - set(names)):
            raise RequestError(f"attribute {unknown[0]!r} is not known; known: {', '.join(names) or 'none'}")
        cells = {name: pd.Series([given.get(name)], dtype=object) for name in names}
        for column in self.columns:
            cell, value = cells[column.name], given.get(column.name)
            if words(cell)[0] is None:
                continue
            if isinstance(value, list | dict):
                raise RequestError(f"attribute {column.name!r}: expected one value, got {str(value)[:60]!r}")
            if column.values and column.places(cell)[0] < 0:
                known = ", ".join(column.values)
                raise RequestError(f"attribute {column.name!r}: {str(value)[:60]!r}, expected one of {known}")
            if not column.values and not np.isfinite(column.numbers(cell)[0]):
                wanted = "a time such as 2024-02-29, or a number of days" if column.times else "a number"
                raise RequestError(f"attribute {column.name!r}: expected {wanted}, got {str(value)[:60]!r}")
        number, known_1 = self.encode(pd.DataFrame(cells, columns=names, index=[0]))
        return number[0], bool(known_1[0])

    def to_json(self) -> str:
        """Return the columns as JSON."""
        names = ("name", "mean", "deviation", "values")
        return json_text(
            [{f: getattr(c, f) for f in names} | ({"times": True} if c.times else {}) for c in self.columns]
        )

    @classmethod
    def from_json(cls, text: str) -> Attributes:
        """Return the columns that `to_json` wrote."""
        return cls([Attribute(**{**entry, "values": tuple(entry["values"])}) for entry in json.loads(text)])


def _fitted(name: str, given: pd.Series[Any]) -> Attribute:
    kind = kind_of(given)
    if kind == "lists":
        raise DataError(f"attribute {name!r}: holds lists, expected one value in each cell")
    if kind == "words":
        values = sorted({word for word in words(given) if word is not None})
        if len(values) > MAX_VALUES:
            raise DataError(f"attribute {name!r}: {len(values)} values that are no numbers, at most {MAX_VALUES}")
        return Attribute(name, values=tuple(values) or ("",))
    number = days(given) if kind == "times" else numbers(given)
    finite = number[np.isfinite(number)]
    # Sums of float32 are taken as float32: what was prepared before is prepared again to the last digit.
    single = given.dtype == np.float32 and bool((np.abs(finite) < LARGE_SINGLE).all())
    mean, deviation = _scale(finite.astype(np.float32) if single else finite)
    return Attribute(name, mean, deviation, times=kind == "times")


def _scale(number_N: np.ndarray) -> tuple[float, float]:
    """Return mean and deviation; 1 where all numbers are the same, whatever rounding makes of their mean."""
    if not len(number_N):
        return 0.0, 1.0
    if number_N.min() == number_N.max():
        return float(number_N[0]), 1.0
    size = float(np.abs(number_N).max())
    if size > LARGE:
        mean, deviation = _scale(number_N / size)
        return mean * size, deviation * size
    column = pd.Series(number_N)
    return float(column.mean()), float(column.std(ddof=0)) or 1.0
