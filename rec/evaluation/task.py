"""Task: what is asked of a model, and how its answers are measured, compared and told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.data.prepared import Prepared
from rec.errors import EvaluationError
from rec.evaluation.bootstrap import Summed
from rec.evaluation.records import Records, column, ragged
from rec.evaluation.service import Context, Exporting, Service
from rec.evaluation.tasks.config import EvaluateConfig
from rec.sections import Section

Values = dict[str, np.ndarray]
"""Per metric one value of each example, (B,); NaN where it is not defined."""
Batches = Callable[[str], Iterator[Any]]
"""From a split to the system's own batches of its rows, in order."""


class TaskRanks(Protocol):
    """The other workers, as a task may ask them while it makes records; every one makes the same calls in order."""

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """Return the elementwise sum over ranks."""


class OneTaskRank:
    """One worker alone."""

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """Return `value`."""
        return value


ALONE = OneTaskRank()


def holds_everywhere(ranks: TaskRanks, here: bool) -> bool:
    """Return whether something holds on every rank, given whether it does on this one."""
    return not bool(ranks.sum_over_ranks(torch.tensor([0.0 if here else 1.0], dtype=torch.float64)).item())


@dataclass(frozen=True, slots=True)
class Groups:
    """Named groups of examples."""

    names: tuple[str, ...]
    label_B: np.ndarray
    """Each example's group, as a place in `names`."""

    def each(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the name of every group that has examples, and which they are, (B,) bool."""
        for index, name in enumerate(self.names):
            inside_B = self.label_B == index
            if inside_B.any():
                yield name, inside_B


@dataclass(kw_only=True)
class Measured:
    """One task's measurement of a trained system on a split, as sections are written from it."""

    system: Any
    module: nn.Module
    data: Prepared
    split: str
    config: EvaluateConfig
    seed: int
    records: Records
    values: Values
    groups: Groups
    batches: Batches | None = None
    """The system's own batches of any split, on the model's device; None where they are not at hand."""
    folder: str = ""
    """Of the run."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """`Task.keys` of the examples."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """What other tasks (`Task.beside`) and the system (`Reporter.told_columns`) tell of each example, by name, for
    tables of examples: arrays or Arrow arrays (B,)."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """What is filed: metrics, intervals, baselines, groups, and what sections add."""
    kept: dict[str, Any] = field(default_factory=dict)
    """What a task keeps from one of its hooks for another; not filed."""


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """One subject of a split, as a trained system is asked to tell of it."""

    called: str
    """What a report calls it."""
    module: nn.Module
    """In eval mode; no gradient is kept."""
    batch: Any
    """The system's own batch of this one example."""
    data: Prepared
    config: EvaluateConfig
    seed: int
    numbers: Mapping[str, Any]
    """What measuring the run has filed, such as means over all subjects."""


class Names(Protocol):
    """Raw ids of a data set's entities."""

    def raw(self, entity: str, index: np.ndarray) -> pa.Array:
        """Return the raw ids of some members of an entity as strings, null where an index is of none."""


class Task(ABC):
    """One kind of question: its metrics, baselines, groups and sections.

    An instance holds what a system chooses, such as cut-offs. A task keeps a record of each example, which are gathered
    over ranks once; every number follows from all records together.
    """

    name: ClassVar[str]
    """What files, routes and reports call it."""
    headline: str
    """The metric that checkpoints are chosen by where a config names none."""
    shown: tuple[str, ...]
    """The metrics that tables and comparisons show, most telling first."""

    @property
    @abstractmethod
    def directions(self) -> Mapping[str, bool]:
        """Every metric by name, and whether higher is better."""

    @property
    def descriptive(self) -> tuple[str, ...]:
        """Numbers beside the metrics that are neither good nor bad, so that nothing can be chosen by them."""
        return ()

    @property
    def evaluate_keys(self) -> tuple[str, ...]:
        """Keys of `[evaluate]` that this task reads, beside those that all do; others are refused."""
        return ()

    @property
    def late(self) -> tuple[str, ...]:
        """Metrics that are only known once a run is measured for a report, by `late_values` or `enrich`: nothing can be
        chosen by them."""
        return ()

    @property
    def grouped(self) -> tuple[str, ...]:
        """Metrics that are told of each group of examples: the two that tell most, unless a task tells more."""
        return self.shown[:2]

    def settings(self, system: Any) -> dict[str, str]:
        """Return how the system is measured, by name in words, told with every score; empty: nothing can be chosen.

        Such as which words are scored, how texts are drawn, and what the system was told.
        """
        return {}

    @property
    def apart(self) -> tuple[str, ...]:
        """Names of those `settings` that two runs must share: others are never ranked beside each other."""
        return ()

    def told_more(self, system: Any) -> tuple[str, ...]:
        """Return the simple answers that are told more of the truth than the system: none of them is called best."""
        return ()

    @property
    def oracles(self) -> tuple[str, ...]:
        """Return the simple answers that know what made generated data: the most that any model can reach."""
        return ()

    @property
    def trade_off(self) -> tuple[str, str] | None:
        """Two metrics of which one often costs some of the other, for a figure over runs; None: there are none."""
        return None

    @property
    def compared(self) -> tuple[str, ...]:
        """Metrics that two runs are compared by, where examples have them: those shown, unless a task adds more."""
        return self.shown

    def meaning(self, name: str) -> str:
        """Return in a few words what a metric, a simple answer or a group is; empty where its name says it."""
        return ""

    @abstractmethod
    def records(
        self,
        system: Any,
        module: nn.Module,
        batch: Batch,
        *,
        detail: EvaluateConfig | None = None,
        ranks: TaskRanks = ALONE,
    ) -> Records:
        """Return what is kept of each example of a batch: unwrapped module, eval mode, no gradient.

        Args:
            system: Has the capability that the task asks for.
            module: The system's model.
            batch: Examples of a split.
            detail: Set where more is wanted than metrics need, for a report.
            ranks: The workers that make records of their own batches at the same time.
        """

    def answers(
        self,
        system: Any,
        module: nn.Module,
        batch: Batch,
        names: Names,
        *,
        most: int = 10,
        records: Records | None = None,
    ) -> dict[str, Any]:
        """Return the answers to a batch as columns for `records_of`, with raw ids: unwrapped module, eval mode.

        A predictor of sets gives the raw ids of the labels that it predicts and their probabilities, a rater `rating`,
        a writer `text`. The types of columns are the same for every batch: lists of raw ids are `names.raw(...)` with
        the example of each.

        Args:
            system: Has the capability that the task asks for.
            module: The system's model.
            batch: Examples of a split, or requests, whose labels are empty.
            names: Raw ids.
            most: How long an answer may be, where it is a list.
            records: The batch's records, where they were made: what they hold need not be computed again.

        Raises:
            EvaluationError: the task has no answers that could be written.
        """
        raise EvaluationError(f"task {self.name!r}: gives no answers to write; {type(self).__name__} lacks `answers`")

    def configured(self, system: Any, keys: EvaluateConfig) -> Task:
        """Return the task as keys of `[evaluate]` want it from the first evaluation in training on; itself by default.

        Raises:
            ConfigError: the system cannot do what a key asks for.
        """
        return self

    def settle(self, system: Any, module: nn.Module, validation: Iterable[Any], keys: EvaluateConfig) -> dict[str, Any]:
        """Return what the task chooses once the checkpoint is chosen, such as a threshold; empty: there is nothing.

        It is kept beside the run and holds for test, predictions and served answers alike.

        Args:
            system: Has the capability that the task asks for.
            module: The system's model, unwrapped, in eval mode, without gradient.
            validation: Batches of validation on the model's device; only read where they are needed.
            keys: Those of `[evaluate]`.
        """
        return {}

    def settled(self, told: Mapping[str, Any]) -> Task:
        """Return the task with what `settle` has returned, as plain values; itself where that is nothing."""
        return self

    @abstractmethod
    def values(self, records: Records) -> Values:
        """Return every metric that each example has one of: over all examples it is the mean."""

    def late_values(self, measured: Measured) -> Values:
        """Return values of examples that need more than records, such as the rows of training; none by default.

        Asked once a run is measured for a report, before its metrics; `metrics` gets them beside `values`.
        """
        return {}

    def sums(self, records: Records) -> Mapping[str, Summed]:
        """Return the metrics that follow from sums over examples and are no mean of theirs; none by default."""
        return {}

    def unit(self, records: Records) -> np.ndarray | None:
        """Return what each example is averaged within before averages are taken, such as its patient; None: itself."""
        return None

    def identity(self, records: Records) -> list[np.ndarray]:
        """Return what tells whether two runs answered the same examples, (B,) each: subjects and their targets."""
        found = [column(records, "subject")] if "subject" in records.column_names else []
        if "target" in records.column_names:
            value_P, example_P = ragged(records, "target")
            edges = np.searchsorted(example_P, np.arange(1, len(records)))
            parts = np.split(value_P, edges)[: len(records)]
            found.append(np.array([hash(tuple(sorted(part.tolist()))) for part in parts]))
        return found

    def unlike(self, name: str, ours: Records, theirs: Records) -> str:
        """Return why a metric of two runs does not compare, though both answered the same examples; empty: it does."""
        return ""

    def metrics(self, records: Records, values: Values | None = None) -> dict[str, float | None]:
        """Return every metric over all examples; None where no example has one."""
        unit = self.unit(records)
        found = self.values(records) if values is None else values
        means = {name: mean(by_unit(value, unit)) for name, value in found.items()}
        return means | {name: summed.value() for name, summed in self.sums(records).items()}

    def groups(self, system: Any, data: Prepared, split: str, records: Records, config: EvaluateConfig) -> Groups:
        """Return the groups of examples that are told apart; none by default."""
        return Groups((), np.zeros(len(records), dtype=np.int64))

    def baselines(
        self, system: Any, data: Prepared, split: str, batches: Batches
    ) -> Mapping[str, Mapping[str, float | None]]:
        """Return what simple answers reach, by the same metrics; none by default."""
        return {}

    def simple_answers(self, measured: Measured, batches: Batches) -> Mapping[str, Mapping[str, float | None]]:
        """Return `baselines` beside a measurement, of which another hook may have kept what they need too."""
        return self.baselines(measured.system, measured.data, measured.split, batches)

    def keys(self, system: Any, data: Prepared, records: Records) -> dict[str, Any]:
        """Return columns by which two runs' records are paired, and what people read of an example, such as raw ids."""
        return {}

    def beside(self, records: Records) -> Mapping[str, np.ndarray]:
        """Return what tables of examples of other tasks tell of each beside their own, (B,) each; none by default."""
        return {}

    def enrich(self, measured: Measured) -> list[str]:
        """Add numbers of the task's own to `measured.numbers`, and values of examples; return notes for people."""
        return []

    def sections(self, measured: Measured) -> list[Section]:
        """Return the task's own parts of a report."""
        return []

    def entities(self, system: Any) -> tuple[str, ...]:
        """Return the entities whose members requests and answers name, beside those of the system's columns."""
        return ()

    def export(self, exporting: Exporting) -> dict[str, Any]:
        """Write the task's own parts of an artifact; return what its manifest tells of them."""
        return {}

    def service(self, context: Context) -> Service | None:
        """Return what answers requests; None where the task is not asked by request."""
        return None


def mean(value: np.ndarray) -> float | None:
    """Return the mean of what is defined, None where nothing is."""
    there = ~np.isnan(value)
    return float(value[there].mean()) if there.any() else None


def by_unit(value_B: np.ndarray, unit_B: np.ndarray | None) -> np.ndarray:
    """Return each unit's mean of what is defined, NaN where nothing is, (U,); the values themselves without units.

    Visits 0.2, 0.4 of one patient and 0.9 of another give 0.3 and 0.9.
    """
    if unit_B is None:
        return value_B
    _, place = np.unique(unit_B, return_inverse=True)
    there = ~np.isnan(value_B)
    total = np.bincount(place, np.where(there, value_B, 0.0))
    count = np.bincount(place, there.astype(np.float64))
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
