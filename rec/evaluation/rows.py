"""Rows of requests: the columns that a system declares, asked for in raw ids and plain values, never labels.

What is read becomes an Arrow table and then columns, by the same way as the rows of files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field, create_model

from rec.batch import Column, Columns
from rec.data.stream import to_columns
from rec.errors import RequestError
from rec.serving.config import ServeConfig

if TYPE_CHECKING:
    from rec.data.members import Members

MAX_TEXT = 100_000
"""Most characters of a text in a request."""
Heard = Callable[[str], bool]


@dataclass(slots=True, kw_only=True)
class RequestRow:
    """One row of a request, in indices."""

    values: dict[str, Any]
    """Per column a value or nested lists, as Arrow takes them."""
    options: Any = None
    """What the request says beside its rows: the task's `options`."""
    task: str = ""
    at: str = ""
    """What messages call it."""
    notes: list[str] = field(default_factory=list)
    heard: Heard | None = None
    """Receives pieces of text as they come; False where nobody listens any more."""
    told: int = 0
    """Characters that were told, so that a row that is answered again tells none of them twice."""


class Rows:
    """Reads rows of requests for a system's columns."""

    def __init__(self, columns: Sequence[Column], members: Callable[[str], Members]) -> None:
        self.columns = tuple(columns)
        self.asked = [column for column in columns if not (column.label or column.place)]
        self.members = {column.entity: members(column.entity) for column in self.asked if column.entity}

    def schema(self, limits: ServeConfig, base: type[BaseModel], an_id: Any) -> type[BaseModel]:
        """Return the model of one row under a deployment's limits."""
        fields: dict[str, Any] = {}
        for column in self.asked:
            kind: Any = _leaf(column, an_id)
            for size in reversed(column.shape):
                most = limits.max_history if size < 0 else size
                kind = Annotated[list[kind], Field(min_length=max(size, 0), max_length=most)]
            along: Any = {"x-along": column.along} if column.along else None
            default = None if column.optional else ...
            fields[column.name] = (kind | None if column.optional else kind, Field(default, json_schema_extra=along))
        return create_model("Row", __base__=base, __doc__="The system's columns, without what it predicts.", **fields)

    def read(self, body: BaseModel, at: str) -> RequestRow:
        """Return a row of a request that fits `schema`; ids that are not known are left out with a note.

        So is one that is not given, unless the row lists other ids, by which it may be known.

        Args:
            body: The row.
            at: What messages call it.

        Raises:
            RequestError: an id is not known in a column that holds just one and is not optional, or in a list of fixed
                length of an entity without padding, or columns along one axis are not as long as each other.
        """
        row = RequestRow(values={}, at=at)
        listed = any(column.entity and column.shape and getattr(body, column.name) for column in self.asked)
        for column in self.asked:
            value = getattr(body, column.name)
            if value is None:
                if column.entity and not column.shape and not listed:
                    told = f"not given; the answer is that for a {column.entity} that is not known"
                    row.notes.append(f"{at}column {column.name!r}: {told}")
                value = empty_value(column, self._nobody(column))
            elif column.entity:
                value = self._indices(column, value, at, row.notes)
            row.values[column.name] = value
        for column in self.columns:
            if column.place:
                row.values[column.name] = empty_value(column, -1)
        self._fill_up(row, {column.name for column in self.asked if getattr(body, column.name) is not None})
        return row

    def _fill_up(self, row: RequestRow, given: set[str]) -> None:
        """Make columns along one axis as long as those of them that were given."""
        for along in dict.fromkeys(column.along for column in self.columns if column.along):
            own = [column for column in self.columns if column.along == along and not column.label]
            sizes = {column.name: len(row.values[column.name]) for column in own if column.name in given}
            if len(set(sizes.values())) > 1:
                told = ", ".join(f"{name!r} has {size}" for name, size in sizes.items())
                raise RequestError(f"{row.at}columns along {along!r} must be as long as each other: {told}")
            for column in own:
                if column.name not in given and sizes:
                    nobody = -1 if column.place else self._nobody(column)
                    nothing = empty_value(_inner(column), nobody)
                    row.values[column.name] = [nothing] * next(iter(sizes.values()))

    def stacked(self, rows: Sequence[RequestRow]) -> Columns:
        """Return some rows as columns, what is to be predicted empty."""
        arrays = {}
        for column in self.columns:
            nothing = empty_value(column, 0)
            values = [nothing if column.label else row.values[column.name] for row in rows]
            arrays[column.name] = pa.array(values, _arrow_type(column))
        return to_columns(pa.table(arrays))

    def told(self, columns: Columns, limits: ServeConfig) -> dict[str, Any]:
        """Return the first row of some columns as a request says it: the way back of `read`."""
        there = [c for c in self.asked if c.name in columns]
        return {c.name: self._told(c, columns[c.name][0], len(c.shape), limits.max_history) for c in there}

    def _told(self, column: Column, value: Any, axes: int, most: int) -> Any:
        if axes:
            return [self._told(column, part, axes - 1, most) for part in value[-most:]]
        plain = value.item() if isinstance(value, np.generic) else value
        if not column.entity:
            return plain
        return self.members[column.entity].id(int(plain)) if int(plain) >= 0 else "unknown"

    def _nobody(self, column: Column) -> int:
        return 0 if column.entity and self.members[column.entity].first else -1 if column.entity else 0

    def _indices(self, column: Column, value: Any, at: str, notes: list[str]) -> Any:
        """Return ids, in lists of any depth, as indices."""
        names: list[str] = []
        _flatten(value, len(column.shape), names)
        members = self.members[column.entity]
        found = members.find(names)
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            if not column.shape and not column.optional:
                raise RequestError(f"{at}column {column.name!r}: {column.entity} {names[0]!r} is not known")
            what, first = f"{at}column {column.name!r}", names[int(unknown[0])]
            if column.shape:
                told = f"{len(unknown)} of {len(names)} are not known as {column.entity}, such as {first!r}"
            else:
                told = f"{column.entity} {first!r} is not known"
            notes.append(f"{what}: {told}")
            if column.shape and column.shape[-1] >= 0 and self._nobody(column) < 0:
                raise RequestError(f"{what}: {told}; a list of fixed length holds known ones alone")
        if not column.shape:
            return int(found[0]) if found[0] >= 0 else self._nobody(column)
        if len(column.shape) == 1:
            if column.shape[0] < 0 and not column.along:
                return found[found >= 0]
            return np.where(found < 0, self._nobody(column), found)
        return _nested(value, column.shape, iter(found.tolist()), self._nobody(column))


def filled(columns: Sequence[Column], given: Mapping[str, Any], count: int) -> Columns:
    """Return columns of `count` rows: those given, the others empty."""
    found = dict(given)
    for column in columns:
        if column.name not in found:
            found[column.name] = empty(column, count)
    return found


def empty(column: Column, count: int) -> Any:
    """Return a column of `count` rows that hold nothing."""
    row = _empty_row(column)
    return np.repeat(row, count, 0) if isinstance(row, np.ndarray) else row.taken(np.zeros(count, np.int64))


@cache
def _empty_row(column: Column) -> Any:
    return to_columns(pa.table({"value": pa.array([empty_value(column, 0)], _arrow_type(column))}))["value"]


def empty_value(column: Column, nobody: int) -> Any:
    """Return what a column holds of a row where nothing is known."""
    if column.shape:
        return [] if column.shape[0] < 0 else [empty_value(_inner(column), nobody)] * column.shape[0]
    return "" if column.dtype == "str" else _arrow_zero(column, nobody)


def _arrow_zero(column: Column, nobody: int) -> Any:
    return False if column.dtype == "bool" else np.dtype(column.dtype).type(nobody).item()


def _inner(column: Column) -> Column:
    return Column(column.name, column.dtype, column.shape[1:])


def _arrow_type(column: Column) -> pa.DataType:
    kind = pa.string() if column.dtype == "str" else pa.from_numpy_dtype(np.dtype(column.dtype))
    for _ in column.shape:
        kind = pa.list_(kind)
    return kind


def _leaf(column: Column, an_id: Any) -> Any:
    if column.entity:
        return Annotated[an_id, Field(json_schema_extra={"x-entity": column.entity})]
    if column.dtype == "str":
        return Annotated[str, Field(max_length=MAX_TEXT)]
    kind = np.dtype(column.dtype)
    if kind.kind == "b":
        return bool
    if kind.kind in "iu":
        range_ = np.iinfo(kind)
        smallest = int(range_.min) if column.least is None else int(column.least)
        return Annotated[int, Field(strict=True, ge=smallest, le=int(range_.max))]
    most = float(np.finfo(kind).max)
    least = -most if column.least is None else column.least
    return Annotated[float, Field(strict=True, ge=least, le=most, allow_inf_nan=False)]


def _flatten(value: Any, axes: int, out: list[str]) -> None:
    if axes == 0:
        out.append(value)
    elif axes == 1:
        out.extend(value)
    else:
        for part in value:
            _flatten(part, axes - 1, out)


def _nested(value: Any, shape: Sequence[int], found: Any, nobody: int) -> Any:
    """Return lists of the shape of `value` with the next indices in the place of ids."""
    if len(shape) > 1:
        return [_nested(part, shape[1:], found, nobody) for part in value]
    indices = [next(found) for _ in value]
    if shape[0] < 0:
        return [index for index in indices if index >= 0]
    return [nobody if index < 0 else index for index in indices]
