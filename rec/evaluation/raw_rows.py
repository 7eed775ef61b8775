"""From raw values to rows as a system reads them: ids become indices, labels are empty, what is wrong is told per row.

Requests of a table and requests over HTTP are read by the same functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rec.batch import Column, Columns
from rec.data.prepared import Prepared
from rec.data.stream import to_columns
from rec.errors import RequestError

Find = Callable[[str, Sequence[str]], np.ndarray]
"""Returns the index of each raw id of an entity, -1 where there is no such member."""
LIST_MARK = "|"
"""Stands between the values of a list that is written as text."""


class EntityNames:
    """Raw ids and indices of a data set's entities, both ways; each entity is read once, when first asked for."""

    def __init__(self, data: Prepared) -> None:
        self.data = data
        self.ids: dict[str, pa.Array] = {}
        self.places: dict[str, dict[str, int]] = {}

    def raw(self, entity: str, index: np.ndarray) -> pa.Array:
        """Return the raw ids of some members of an entity as strings, null where an index is of none."""
        ids, first = self._ids(entity), self.data.entities[entity].first
        place = np.asarray(index, dtype=np.int64) - first
        return ids.take(pa.array(place, mask=(place < 0) | (place >= len(ids))))

    def find(self, entity: str, raw: Sequence[str]) -> np.ndarray:
        """Return the index of each raw id, int64 (len(raw),), -1 where there is no such member."""
        if entity not in self.places:
            first = self.data.entities[entity].first if entity in self.data.entities else 0
            self.places[entity] = {name: i + first for i, name in enumerate(self._ids(entity).to_pylist())}
        places = self.places[entity]
        return np.array([places.get(name, -1) for name in raw], dtype=np.int64)

    def _ids(self, entity: str) -> pa.Array:
        if entity not in self.ids:
            ids = self.data.entity(entity)["id"].cast(pa.string()).combine_chunks()
            self.ids[entity] = pa.concat_arrays(ids.chunks) if isinstance(ids, pa.ChunkedArray) else ids
        return self.ids[entity]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows that were read from raw values."""

    columns: Columns
    """The good rows as a system collates them, labels empty; no column where no row is good."""
    kept: np.ndarray
    """The number of each good row among those given."""
    notes: list[list[str]]
    """For each row given, what of it could not be used."""
    errors: list[str | None]
    """For each row given, why it cannot be answered."""


def rows_of(values: Sequence[Mapping[str, Any]], columns: Sequence[Column], find: Find) -> Rows:
    """Return rows of raw values as the columns of a system.

    An unknown member of a list is left out and noted; an unknown id in a column that a request may leave out counts as
    left out and is noted; any other unknown id, a missing column or a value of another type is the row's error. Names
    that are no column are not looked at.

    Args:
        values: Per row its values by column: ids as text or whole numbers, lists as lists or as text (`a|b`, or JSON).
        columns: What the system reads.
        find: Looks up raw ids.
    """
    notes: list[list[str]] = [[] for _ in values]
    errors: list[str | None] = [None] * len(values)
    read: dict[str, list[Any]] = {}
    for column in columns:
        cells: list[Any] = []
        for number, row in enumerate(values):
            try:
                cells.append(_cell(row, column) if errors[number] is None else None)
            except RequestError as error:
                errors[number] = f"column {column.name!r}: {error}"
                cells.append(None)
        read[column.name] = _indices(cells, column, find, notes, errors) if _asked(column) else cells
    kept = np.array([number for number, error in enumerate(errors) if error is None], dtype=np.int64)
    if not len(kept):
        return Rows(columns={}, kept=kept, notes=notes, errors=errors)
    arrays = {
        column.name: pa.array([_filled(read[column.name][number], column) for number in kept], arrow_type(column))
        for column in columns
    }
    return Rows(columns=to_columns(pa.table(arrays)), kept=kept, notes=notes, errors=errors)


def arrow_type(column: Column) -> pa.DataType:
    """Return the Arrow type of a column's values: lists where it is ragged."""
    kind = pa.string() if column.dtype == "str" else pa.from_numpy_dtype(np.dtype(column.dtype))
    for size in reversed(column.shape):
        kind = pa.list_(kind) if size < 0 else pa.list_(kind, size)
    return kind


def _asked(column: Column) -> bool:
    return bool(column.entity) and not column.label


def _cell(row: Mapping[str, Any], column: Column) -> Any:
    """Return a row's value of a column, ids still as text; None where it is a label or left out."""
    value = row.get(column.name)
    if column.label:
        return None
    if value is None or (isinstance(value, str) and not value and (column.entity or column.dtype != "str")):
        if column.optional or (column.shape[:1] == (-1,) and value is not None):
            return None
        raise RequestError("is missing")
    return _value(value, column, column.shape)


def _value(value: Any, column: Column, shape: tuple[int, ...]) -> Any:
    if not shape:
        return _id(value) if column.entity else _number(value, column.dtype)
    if isinstance(value, str):
        value = _listed(value)
    if not isinstance(value, list | tuple | np.ndarray):
        raise RequestError(f"holds {_shown(value)}, expected a list")
    if shape[0] >= 0 and len(value) != shape[0]:
        raise RequestError(f"holds {len(value)} values, expected {shape[0]}")
    return [_value(part, column, shape[1:]) for part in value]


def _listed(text: str) -> Any:
    if not text.lstrip().startswith("["):
        return [part for part in text.split(LIST_MARK) if part]
    try:
        return json.loads(text)
    except ValueError as error:
        raise RequestError(f"holds {_shown(text)}, which is no JSON list ({error})") from error


def _id(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():  # whole numbers in a column of which some are missing
        value = int(value)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)
    raise RequestError(f"holds {_shown(value)}, expected an id as text or whole number")


def _number(value: Any, dtype: str) -> Any:
    """Return a value of a column that holds no ids."""
    if dtype == "str":
        if not isinstance(value, str):
            raise RequestError(f"holds {_shown(value)}, expected text")
        return value
    kind = np.dtype(dtype)
    try:
        if kind.kind == "b":
            return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]
        number = float(value) if kind.kind == "f" else int(value)
        if kind.kind in "iu" and not isinstance(value, str) and number != value:
            raise ValueError
        if kind.kind in "iu" and not np.iinfo(kind).min <= number <= np.iinfo(kind).max:
            raise ValueError
        return number
    except (ValueError, TypeError, KeyError, OverflowError):
        raise RequestError(f"holds {_shown(value)}, expected {dtype}") from None


def _indices(
    cells: list[Any], column: Column, find: Find, notes: list[list[str]], errors: list[str | None]
) -> list[Any]:
    """Return cells with indices in the place of raw ids; None where an optional one is of no member."""
    raw = list(dict.fromkeys(name for cell in cells if cell is not None for name in _leaves(cell)))
    index = dict(zip(raw, find(column.entity, raw).tolist(), strict=True)) if raw else {}
    found: list[Any] = []
    for number, cell in enumerate(cells):
        unknown = [] if cell is None else [name for name in _leaves(cell) if index[name] < 0]
        told = f"{len(unknown)} of {column.name} not known, such as {unknown[0]!r}" if unknown else ""
        if not unknown or column.shape[-1:] == (-1,):
            notes[number] += [told] if told else []
            found.append(None if cell is None else _known(cell, index))
        elif column.optional:
            notes[number].append(f"{column.name} {unknown[0]!r} is not known")
            found.append(None)
        else:
            errors[number] = f"column {column.name!r}: {unknown[0]!r} is not known"
            found.append(None)
    return found


def _leaves(cell: Any) -> Iterator[str]:
    if isinstance(cell, str):
        yield cell
        return
    for part in cell:
        yield from _leaves(part)


def _known(cell: Any, index: Mapping[str, int]) -> Any:
    if isinstance(cell, str):
        return index[cell]
    return [_known(part, index) for part in cell if not isinstance(part, str) or index[part] >= 0]


def _filled(cell: Any, column: Column) -> Any:
    """Return a cell, or what stands for one that is empty: no value of a list, no member of an entity, 0."""
    return _empty(column, column.shape) if cell is None else cell


def _empty(column: Column, shape: tuple[int, ...]) -> Any:
    if shape:
        return [] if shape[0] < 0 else [_empty(column, shape[1:])] * shape[0]
    if column.dtype == "str":
        return ""
    return -1 if column.entity and not column.label else 0


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
