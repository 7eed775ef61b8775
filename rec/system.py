"""System: what one paper contributes; everything else is shared."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from rec.batch import Batch
from rec.errors import ConfigError, RequestError
from rec.meters import Meter
from rec.strict import Strict

Columns = Mapping[str, Any]
"""Rows as columns: a numpy array of one value per row, or a list of numpy arrays where rows are ragged."""
B = TypeVar("B", bound=Batch)
T = TypeVar("T")
TINY = 1e-30


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
    root: bool = False
    """Whether the root of the sum over all ranks counts: the norm of the global batch from sums of squares."""

    @property
    def mean(self) -> Tensor:
        """The term of this rank's rows alone, without its weight."""
        return (self.sum.sqrt() if self.root else self.sum) / float(self.count)

    def value_of(self, total: float, count: float) -> float:
        """Return the term of the global batch from sums over all ranks, without its weight."""
        return (math.sqrt(total) if self.root else total) / count

    def part_of(self, total: float, count: float) -> Tensor:
        """Return what to differentiate here, so that gradients add up over ranks to that of the global batch's term."""
        slope = 0.5 / math.sqrt(max(total, TINY)) if self.root else 1.0
        return self.sum * (slope / count)


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request wants of a ranking, in item indices."""

    k: int = 10
    exclude: tuple[int, ...] = ()
    """Items to leave out beside those the user has seen."""
    candidates: tuple[int, ...] | None = None
    """The only items to rank, seen ones too; None ranks all unseen ones."""
    explain: bool = False
    """Whether the answer tells the weights behind each item."""


class PhaseFeed(Protocol):
    """What `Phase.before` gets beside the module: this rank's rows, and ways to agree with the other ranks.

    Every rank makes the same calls in the same order.
    """

    rank: int
    world_size: int

    def rows(self, split: str) -> Iterator[tuple[Any, bool]]:
        """Yield this rank's batches of a split in the order of its files, on the module's device.

        Every rank gets as many. One that only keeps this rank in step with the others comes with False: it counts
        nowhere.
        """

    def gather(self, value: Any) -> list[Any]:
        """Return the value (numpy arrays, or any Python object) of every rank, in the order of ranks, to all."""

    def once(self, function: Callable[[], T]) -> T:
        """Return what `function` returns on the first rank, which alone calls it.

        Raises:
            TrainingError: it failed there.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of training. What is None is the run's own; `[train.phases.NAME]` overrides either.

    While a phase lasts, the module's attribute `phase` holds its name, so that a forward or a loss can leave out what
    the phase does not use. The next phase starts from the best weights of this one.
    """

    name: str = "train"
    trains: tuple[str, ...] = ("*",)
    """Globs of the parameters that move, among those that the model itself does not freeze."""
    terms: tuple[str, ...] = ("*",)
    """Globs of the terms of the loss that count."""
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    optimiser: Literal["adamw", "adam"] | None = None
    metric: str | None = None
    patience: int | None = None
    warmup_steps: int | None = None
    schedule: Literal["constant", "linear", "cosine"] | None = None
    weight_decay: float | None = None
    before: Callable[[nn.Module, PhaseFeed], None] | None = None
    """Called once on every rank when the phase starts, with the module in eval mode. What is to last goes into buffers
    of the module: they are made equal to the first rank's and are part of every checkpoint. A run that goes on inside
    the phase does not call it again. What is random draws from torch's global generator, seeded alike on all ranks."""


class System(ABC, Generic[B]):
    """One paper's recommender, written for one device and one batch.

    Nothing here knows of workers, files or clusters. `collate` is the only way from rows to a batch: training,
    evaluation and serving call the same one.
    """

    Config: ClassVar[type[Strict]]
    columns: ClassVar[tuple[Column, ...]]
    tables: ClassVar[tuple[str, ...]] = ()
    knows_users_without_history: ClassVar[bool] = False
    """Whether users are told apart by more than their histories."""
    directions: ClassVar[Mapping[str, bool]] = {}
    """Whether higher is better, for metrics of which that is not so; losses are known to fall."""
    notice: ClassVar[str] = ""
    """What people must be told with every answer."""

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

    def start_epoch(self, module: nn.Module, epoch: int) -> None:
        """Prepare the module for an epoch; called on every rank, also where a run goes on inside the epoch.

        What is random here must follow from (seed, epoch) alone.
        """

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
    def predict(self, module: nn.Module, batch: B, asks: Sequence[Ask] | None = None) -> list[dict[str, Any]]:
        """Return one JSON-ready answer per example.

        A system that ranks a catalogue answers with `items` (indices, best first) and `scores`, and follows the ask
        of each example; None stands for `Ask()` each.
        """

    def catalogue(self, module: nn.Module) -> dict[str, Tensor]:
        """Return what depends on the weights alone and would be computed anew for every batch; served from one copy.

        A table named `item_ID` holds the vectors by whose inner product with `queries` items are ranked.
        """
        return {}

    def freeze(self, module: nn.Module, catalogue: Mapping[str, Tensor]) -> None:
        """Let the module answer from a catalogue that was computed before."""

    def states(self, module: nn.Module, batch: B) -> dict[str, Tensor]:
        """Return all that a ranking needs of each example's own, (B, ...); empty where `predict` is all there is.

        An artifact holds the states of known users, so that they are ranked for without looking at their histories.
        """
        return {}

    def rank(
        self, module: nn.Module, states: Mapping[str, Tensor], seen: tuple[Tensor, Tensor], asks: Sequence[Ask]
    ) -> list[dict[str, Any]]:
        """Return what `predict` does, from states and the (example, item) pairs to leave out."""
        raise NotImplementedError(f"{type(self).__name__} gives states and does not rank by them")

    def queries(self, module: nn.Module, batch: B) -> Tensor:
        """Return the vectors (B, D) whose inner products with `item_ID` are the scores of items, or come near them.

        Raises:
            ConfigError: the scores are no inner products.
        """
        raise ConfigError(f"serve.index: the scores of {type(self).__name__} are no inner products; use exact")

    def scores_of(self, module: nn.Module, batch: B, item_BC: Tensor) -> Tensor | None:
        """Return the exact scores of candidates, (B, C), where the inner products of `queries` only come near them."""
        return None

    def explain(self, module: nn.Module, batch: B, items: Sequence[int]) -> list[dict[str, Any]]:
        """Return why each example would be shown its item: at least its `score` and `parts` that add up to it.

        Raises:
            RequestError: the system has no such answer.
        """
        raise RequestError(f"{type(self).__name__} does not explain single items")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of what answers tell the weights of; empty where the data set names them."""
        return ()

    def analyser(self, module: nn.Module) -> Callable[[B], dict[str, Tensor]] | None:
        """Return a function that tells more of each example's ranking than its metrics, None where there is none."""
        return None

    def phases(self) -> tuple[Phase, ...]:
        """Return the stretches of training, in order."""
        return (Phase(),)

    @classmethod
    @abstractmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows and tables that fit the declared columns, for tests."""
