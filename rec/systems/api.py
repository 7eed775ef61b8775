"""System: what one paper contributes; everything else is shared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from rec.batch import Batch, Column, Columns
from rec.evaluation.task import Task
from rec.nn.memory import Memory
from rec.strict import Strict
from rec.terms import Term
from rec.train.config import ParallelConfig, TrainConfig

B = TypeVar("B", bound=Batch)
M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


class PhaseFeed(Protocol):
    """What `Phase.before` gets beside the module: this rank's rows, and ways to agree with the other ranks.

    Every rank makes the same calls in the same order.
    """

    rank: int
    world_size: int
    """How many ranks there are."""

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
    accumulate: int | None = None
    tokens: int | None = None
    learning_rate: float | None = None
    optimiser: Literal["adamw", "adam"] | None = None
    metric: str | None = None
    patience: int | None = None
    patience_examples: int | None = None
    warmup_steps: int | None = None
    schedule: Literal["constant", "linear", "cosine"] | None = None
    weight_decay: float | None = None
    before: Callable[[nn.Module, PhaseFeed], None] | None = None
    """Called once on every rank when the phase starts, with the module in eval mode. What is to last goes into buffers
    of the module: they are made equal to the first rank's and are part of every checkpoint. A run that goes on inside
    the phase does not call it again. What is random draws from torch's global generator, seeded alike on all ranks."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Why a config reads a table."""

    key: str
    """What asks for it, as "model.gate"."""
    without: str = ""
    """An override that does without it, as "model.gate=none"; "" where there is none."""


class System(ABC, Generic[B, M]):
    """One paper's recommender, written for one device and one batch: B its batch, M its model. Capabilities say what
    it can be asked.

    Nothing here knows of workers, files or clusters. `collate` is the only way from rows to a batch: training,
    evaluation and serving call the same one.
    """

    Config: ClassVar[type[Strict]]
    """Its own keys, those of `[model]`."""
    columns: tuple[Column, ...]
    """What it reads of a row; where that follows from the keys, `columns_for` tells it, and this is every column."""
    tables: ClassVar[tuple[str, ...]] = ()
    """The inputs of a whole data set that it reads; where that follows from the keys, `table_names` tells it."""
    view: ClassVar[str] = ""
    """The view whose rows it reads ("sequences", "pairs", "graph", or an import path); "" reads the rows that a data
    set was written with."""
    tasks: tuple[Task, ...]
    """What can be asked of it, the most telling first; each asks for a capability that the class inherits."""
    loss_terms: ClassVar[Mapping[str, str]] = {}
    """What the parts of its loss are, in words, by a glob of their names; the first that fits counts."""
    notice: str = ""
    """What people must be told with every answer."""

    def __init__(self, config: Any, tables: Mapping[str, np.ndarray], seed: int = 0) -> None:
        self.config, self.static, self.seed = config, tables, seed
        self.columns = self.columns_for(config)
        self.left_out: set[int] = set()
        """Subjects whom the loss has left out, as nothing is there that they have not; told after an epoch."""

    @classmethod
    def columns_for(cls, config: Any) -> tuple[Column, ...]:
        """Return what it reads of a row as configured, such as a label that a key lets requests tell."""
        return cls.columns

    @classmethod
    def table_names(cls, config: Any) -> tuple[str, ...]:
        """Return the whole-data-set inputs that this config reads."""
        return cls.tables

    @classmethod
    def further_tables(cls, config: Any) -> tuple[str, ...]:
        """Return the inputs that are read where the data set holds them, and done without where it does not."""
        return ()

    @classmethod
    def record_tables(cls, config: Any) -> tuple[str, ...]:
        """Return those of its inputs that have a row per record, which requests never name (`Column.place`).

        An artifact holds none of their rows: it does not grow with the records, and tells of nobody's.
        """
        return ()

    @classmethod
    def wanted_by(cls, config: Any, table: str) -> Wanted | None:
        """Return which key asks for one of `table_names`, None where the system reads it whatever the keys say.

        Unless a system says otherwise, a key asks for a table whose name has a part, such as a modality, that is one
        of the key's values.
        """
        parts = set(table.split("_")[1:])
        for key, value in config.model_dump(mode="json").items():
            names = value if isinstance(value, list | dict) else [value]
            if any(isinstance(name, str) and name in parts for name in names):
                return Wanted(f"model.{key}")
        return None

    @abstractmethod
    def model(self) -> M:
        """Return a freshly initialised model: single device, no wrappers."""

    @abstractmethod
    def collate(self, rows: Columns) -> B:
        """Return the batch for these rows."""

    def start_epoch(self, module: M, epoch: int) -> None:
        """Prepare the module for an epoch; called on every rank, also where a run goes on inside the epoch.

        What is random here must follow from (seed, epoch) alone.
        """

    def lengths(self, rows: Columns) -> np.ndarray:
        """Return how many tokens or events the model computes for each row, int64 (B,); `train.tokens` cuts by it.

        Only systems have it whose rows differ in it.
        """
        raise NotImplementedError(f"{type(self).__name__} tells no lengths of its rows")

    @abstractmethod
    def loss(self, model: Callable[[B], Any], batch: B) -> dict[str, Term]:
        """Return the named parts of the loss for one batch; `model` is the engine."""

    def counts(self, module: M, batch: B) -> Mapping[str, float] | None:
        """Return the count of every term of the loss where they follow from the batch alone, None where they do not.

        Microbatches of a step then need no pass of their own for what all of it counts. The terms have neither roots
        nor scales.
        """
        return None

    def within_batch(self) -> tuple[str, ...]:
        """Return the terms of the loss that compare rows of a batch with each other, such as a contrast in the batch.

        Where a step is cut into microbatches they are those of each one, and a run says so. All other terms have to be
        sums over rows, or of rows and of what all of the step count (`rec.moe.step`).
        """
        return ()

    def memory(self, train: TrainConfig, parallel: ParallelConfig) -> Memory | None:
        """Return the bytes that a worker needs to train it, estimated from shapes alone; None where that is not known.

        It is told before training starts, which is refused where a worker has less.
        """
        return None

    def catalogue(self, module: M) -> dict[str, Tensor]:
        """Return what depends on the weights alone and would be computed anew for every batch; served from one copy."""
        return {}

    def freeze(self, module: M, catalogue: Mapping[str, Tensor]) -> None:
        """Let the module answer from a catalogue that was computed before."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of what answers tell the weights of; empty where the data set names them."""
        return ()

    def phases(self) -> tuple[Phase, ...]:
        """Return the stretches of training, in order."""
        return (Phase(),)

    @classmethod
    @abstractmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows and tables that fit the declared columns, for tests."""
