"""Batch: the tensors of one step, and the columns of the rows that it is made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch

Columns = Mapping[str, Any]
"""Rows as columns: a numpy array of one value per row, or a list of numpy arrays where rows are ragged."""


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
        """Return this batch with every tensor, those of batches in it included, on `device`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {k: v.to(device, non_blocking=True) for k, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, **tensors, **{k: v.to(device) for k, v in values.items() if isinstance(v, Batch)})

    def owners(self) -> torch.Tensor | None:
        """Return the example of each row that the model computes, int64 (N,); None where rows are the examples."""
        return None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""
