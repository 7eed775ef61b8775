"""Batch: the tensors of one step, and the columns of the rows that it is made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, Self, overload

import numpy as np
import torch

from rec.transfer import sent

Columns = Mapping[str, Any]
"""Rows as columns: a numpy array of one value per row; where rows are ragged a `RaggedColumn`, or a list of arrays."""


class RaggedColumn(Sequence[Any]):
    """A column of ragged rows in one array: row b is `values[offset[b] : offset[b + 1]]`, a view.

    Rows of rows, such as the codes of each earlier visit, are a `RaggedColumn` of values that are one.
    """

    __slots__ = ("offset", "values")

    def __init__(self, values: np.ndarray | RaggedColumn, offset: np.ndarray) -> None:
        self.values, self.offset = values, offset

    @classmethod
    def of(cls, column: Any) -> RaggedColumn:
        """Return a column as one of these: arrays or lists of numbers of any lengths, or one number per row."""
        if isinstance(column, cls):
            return column
        if isinstance(column, np.ndarray) and column.dtype != object:
            row = int(np.prod(column.shape[1:]))
            return cls(column.reshape(-1), np.arange(len(column) + 1) * row)
        parts = [np.atleast_1d(np.asarray(part)) for part in column]
        offset = np.cumsum([0, *map(len, parts)])
        filled = [part for part in parts if len(part)]
        return cls(np.concatenate(filled) if filled else np.zeros(0, np.int64), offset)

    @classmethod
    def nested(cls, column: Any) -> RaggedColumn:
        """Return a column of rows of rows as one of these."""
        if isinstance(column, cls) and isinstance(column.values, cls):
            return column
        rows = [list(row) for row in column]
        return cls(cls.of([part for row in rows for part in row]), np.cumsum([0, *map(len, rows)]))

    @property
    def lengths(self) -> np.ndarray:
        """How many values each row has, int64 (B,)."""
        return np.diff(self.offset).astype(np.int64, copy=False)

    @property
    def owners(self) -> np.ndarray:
        """The row of each value of `flat`, int64."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def flat(self) -> Any:
        """The values of all rows, one row after the other."""
        return self.values[self.offset[0] : self.offset[-1]]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.offset) - 1

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> RaggedColumn: ...
    def __getitem__(self, place: int | slice) -> Any:
        """Return a row, or the column of some rows."""
        if isinstance(place, slice):
            start, end, stride = place.indices(len(self))
            if stride != 1:
                return self.taken(range(start, end, stride))
            return RaggedColumn(self.values, self.offset[start : max(start, end) + 1])
        row = place + len(self) if place < 0 else place
        if not 0 <= row < len(self):
            raise IndexError(f"row {place} of {len(self)}")
        return self.values[self.offset[row] : self.offset[row + 1]]

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows."""
        for start, end in pairwise(self.offset.tolist()):
            yield self.values[start:end]

    def last(self) -> RaggedColumn:
        """Return of rows of rows the last one of each, and one without values where there is none."""
        inner, length = self.flat, self.lengths
        with_none = RaggedColumn(inner.flat, np.cumsum(np.concatenate([[0], inner.lengths, [0]])))
        return with_none.taken(np.where(length > 0, np.cumsum(length) - 1, len(inner)))

    def taken(self, rows: Sequence[int] | np.ndarray) -> RaggedColumn:
        """Return the column of these rows, in this order."""
        row = np.asarray(rows, np.int64)
        length, start = self.lengths[row], self.offset[row]
        offset = np.concatenate([[0], np.cumsum(length)])
        place = np.arange(offset[-1]) + np.repeat(start - offset[:-1], length)
        values = self.values
        return RaggedColumn(values.taken(place) if isinstance(values, RaggedColumn) else values[place], offset)


@dataclass(frozen=True, slots=True)
class Column:
    """One Parquet column a system reads. `shape` omits the row axis; -1 is ragged."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    label: bool = False
    """Whether it is what is to be predicted: never asked of a request, and empty there."""
    entity: str = ""
    """The entity whose members its values are, by index: requests name them by raw ids."""
    optional: bool = False
    """Whether a request may leave it out; it is empty then."""
    place: bool = False
    """Whether it tells what only the data set knows, such as places of its records or whose they are: never asked of a
    request, and -1 or empty there; no artifact holds the members that it names."""
    along: str = ""
    """What its first axis counts where other columns count the same, as "earlier visit" for what each of a patient's
    earlier visits holds: columns of one name are as long as each other; what a request leaves out is filled up."""
    least: float | None = None
    """The smallest number that a request may say; None bounds nothing."""
    asked_only: bool = False
    """Whether requests alone have it: rows of a data set come without."""


def stored(columns: Iterable[Column]) -> list[str]:
    """Return the names of the columns that rows of a data set have."""
    return [column.name for column in columns if not column.asked_only]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Base of every system's batch: a record of tensors that moves between devices as one."""

    def to(self, device: torch.device | str) -> Self:
        """Return this batch with every tensor, those of batches in it included, on `device`; the host does not wait."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {k: sent(v, device) for k, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, **tensors, **{k: v.to(device) for k, v in values.items() if isinstance(v, Batch)})

    def owners(self) -> torch.Tensor | None:
        """Return the example of each row that the model computes, int64 (N,); None where rows are the examples."""
        return None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""
