"""Rows of a table of requests: read as `/v1/predict` reads rows, with what is wrong told per row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ValidationError

from rec.batch import Column, Columns
from rec.data.members import Members
from rec.data.prepared import Prepared
from rec.errors import RequestError
from rec.evaluation.rows import RequestRow, Rows
from rec.evaluation.service import Id
from rec.serving.config import ServeConfig

EXACT = 1 << 53
"""Whole numbers up to here are all different as float64."""
LIST_MARK = "|"
"""Stands between the values of a list that is written as text."""
LIMITS = ServeConfig(max_history=1 << 31)
"""A table has no deadline, so that its lists may be of any length."""


class EntityNames:
    """Raw ids and indices of a data set's entities, both ways; each entity is read once, when first asked for."""

    def __init__(self, data: Prepared) -> None:
        self.data = data
        self.known: dict[str, Members] = {}

    def members(self, entity: str) -> Members:
        """Return the members of an entity."""
        if entity not in self.known:
            self.known[entity] = Members.of(self.data.entities[entity], self.data.entity(entity))
        return self.known[entity]

    def raw(self, entity: str, index: np.ndarray) -> pa.Array:
        """Return the raw ids of some members of an entity as strings, null where an index is of none."""
        members, place = self.members(entity), np.asarray(index, dtype=np.int64)
        none = (place < members.first) | (place >= len(members))
        return pa.array(
            [None if gone else members.id(int(i)) for i, gone in zip(place, none, strict=True)], pa.string()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Rows that were read from raw values."""

    columns: Columns
    """The good rows as a system collates them, labels empty; no column where no row is good."""
    kept: np.ndarray
    """The number of each good row among those given."""
    notes: list[list[str]]
    """For each row given, what of it could not be used."""
    errors: list[str | None]
    """For each row given, why it cannot be answered."""


class TableRows:
    """Reads rows of raw values for a system's columns."""

    def __init__(self, columns: Sequence[Column], names: EntityNames) -> None:
        self.rows = Rows(columns, names.members)
        self.model = self.rows.schema(LIMITS, BaseModel, Id)
        self.known = {column.name for column in columns}
        self.asked = ", ".join(column.name for column in self.rows.asked)

    def read(self, values: Sequence[Mapping[str, Any]]) -> Read:
        """Return rows of raw values as the columns of a system.

        An unknown member of a list is left out and noted; an unknown id in a column that a request may leave out counts
        as left out and is noted; any other unknown id, a missing column or a value of another type is the row's error.
        A name that is no column is noted.

        Args:
            values: Per row its values by column: ids as text or whole numbers, lists as lists or as text (`a|b`, JSON).
        """
        good: list[RequestRow] = []
        kept: list[int] = []
        notes: list[list[str]] = []
        errors: list[str | None] = []
        for number, value in enumerate(values):
            try:
                row = self.rows.read(self.model.model_validate(self._plain(value)), "")
            except ValidationError as error:
                errors.append(_told(error))
                notes.append([])
            except RequestError as error:
                errors.append(str(error))
                notes.append([])
            else:
                good.append(row)
                kept.append(number)
                errors.append(None)
                notes.append([*row.notes, *self._unknown(value)])
        columns = self.rows.stacked(good) if good else {}
        return Read(columns=columns, kept=np.array(kept, dtype=np.int64), notes=notes, errors=errors)

    def _unknown(self, row: Mapping[str, Any]) -> list[str]:
        """Return a note for each column of a row that the system does not read."""
        return [f"column {name!r} is not read; there are {self.asked}" for name in row if name not in self.known]

    def _plain(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a row says of the columns that are asked for, as JSON would say it."""
        found = {}
        for column in self.rows.asked:
            value = row.get(column.name)
            if value is None or (value == "" and (column.entity or column.dtype != "str") and not column.shape):
                continue
            found[column.name] = _plain(value, column, len(column.shape))
        return found


def _plain(value: Any, column: Column, axes: int) -> Any:
    if axes:
        value = _listed(value, column) if isinstance(value, str) else value
        if isinstance(value, list | tuple | np.ndarray):
            return [_plain(part, column, axes - 1) for part in value]
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer() and np.dtype(_dtype(column)).kind in "iu":
        # Whole numbers in a column of which some are missing; beyond EXACT, which one it was is not known any more.
        return int(value) if abs(value) <= EXACT else value
    if isinstance(value, str) and not column.entity and column.dtype != "str":
        return _number(value)
    return value


def _dtype(column: Column) -> str:
    return "int64" if column.entity or column.dtype == "str" else column.dtype


def _listed(text: str, column: Column) -> Any:
    if not text.lstrip().startswith("["):
        return [part for part in text.split(LIST_MARK) if part]
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"column {column.name!r}: holds {text[:40]!r}, which is no JSON list ({error})") from error


def _number(text: str) -> Any:
    """Return the number or truth that a text of a file without types stands for, else the text."""
    try:
        return json.loads(text.lower())
    except (ValueError, RecursionError):
        return text


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    where = "".join(f"[{part}]" for part in first["loc"][1:])
    found = "" if first["type"] == "missing" else f", got {str(first['input'])[:60]!r}"
    return f"column {first['loc'][0]!r}{where}: {first['msg'][0].lower()}{first['msg'][1:]}{found}"
