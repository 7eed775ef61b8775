"""System: what one paper contributes; everything else is shared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from torch import Tensor, nn

from rec.batch import Batch
from rec.keys import Strict
from rec.meters import Meter

Columns = Mapping[str, Any]
"""Rows as columns: a numpy array of one value per row, or a list of numpy arrays where rows are ragged."""
B = TypeVar("B", bound=Batch)


@dataclass(frozen=True, slots=True)
class Column:
    """One Parquet column a system reads. `shape` omits the row axis; -1 is ragged."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a loss, kept as a sum so that ranks and microbatches add up exactly."""

    sum: Tensor  # ()
    count: Tensor | float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training: which parameters move (globs) and which terms count (globs)."""

    name: str = "train"
    epochs: int | None = None
    trains: tuple[str, ...] = ("*",)
    terms: tuple[str, ...] = ("*",)


class System(ABC, Generic[B]):
    """One paper's recommender, written for one device and one batch.

    Nothing here knows of workers, files or clusters. `collate` is the only way from rows to a batch: training,
    evaluation and serving call the same one.
    """

    Config: ClassVar[type[Strict]]
    columns: ClassVar[tuple[Column, ...]]
    tables: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any, tables: Mapping[str, np.ndarray], seed: int = 0) -> None:
        self.config, self.static, self.seed = config, tables, seed

    @classmethod
    def table_names(cls, config: Any) -> tuple[str, ...]:
        """Return the whole-data-set inputs that this config reads."""
        return cls.tables

    @abstractmethod
    def model(self) -> nn.Module:
        """Return a freshly initialised model: single device, no wrappers."""

    @abstractmethod
    def collate(self, rows: Columns) -> B:
        """Return the batch for these rows."""

    @abstractmethod
    def loss(self, model: Callable[[B], Any], batch: B) -> dict[str, Term]:
        """Return the named parts of the loss for one batch; `model` is the engine."""

    @abstractmethod
    def meters(self) -> dict[str, Meter]:
        """Return fresh meters, keyed by the metric name that is logged."""

    @abstractmethod
    def measure(self, module: nn.Module, batch: B, meters: Mapping[str, Meter]) -> None:
        """Add one evaluation batch to the meters (unwrapped module, eval mode, no gradient)."""

    @abstractmethod
    def predict(self, module: nn.Module, batch: B) -> list[dict[str, Any]]:
        """Return one JSON-ready answer per example."""

    def phases(self) -> tuple[Phase, ...]:
        """Return the stretches of training, in order."""
        return (Phase(),)

    @classmethod
    @abstractmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows and tables that fit the declared columns, for tests."""
