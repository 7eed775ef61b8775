"""Measuring a system on a split: records of its tasks over all ranks, and the metrics that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from rec.batch import Batch
from rec.errors import EvaluationError
from rec.evaluation.experts import Routed
from rec.evaluation.records import Records, joined, moved, with_columns
from rec.evaluation.task import ALONE, Task, TaskRanks
from rec.evaluation.tasks.config import EvaluateConfig
from rec.systems.api import System
from rec.systems.capabilities import Reporter


def teller(system: System[Any, Any], module: nn.Module) -> Callable[[Batch], dict[str, Any]]:
    """Return a function that tells `Reporter.told_columns` of a batch (eval mode, no gradient)."""
    names = system.told_columns if isinstance(system, Reporter) else ()
    analyse = system.analyser(module) if names and isinstance(system, Reporter) else None
    if analyse is None:
        return lambda _: {}

    def tell(batch: Batch) -> dict[str, Any]:
        columns = analyse(batch)
        return {name: columns[name] for name in names}

    return tell


def told_of(system: System[Any, Any], records: Mapping[str, Records]) -> dict[str, Any]:
    """Return `Reporter.told_columns` of records that were made with `detail`, Arrow arrays (B,)."""
    names = system.told_columns if isinstance(system, Reporter) else ()
    first = records[system.tasks[0].name]
    return {name: first[name].combine_chunks() for name in names if name in first.column_names}


class MeasuringRanks(TaskRanks, Protocol):
    """What measuring needs of an engine."""

    module: nn.Module
    device: torch.device

    def gather(self, value: Any) -> list[Any]:
        """Return the value of every rank, on every rank."""


class Recorder:
    """Makes the records of batches; with `detail` all that a report is written from."""

    def __init__(
        self,
        system: System[Any, Any],
        module: nn.Module,
        detail: EvaluateConfig | None,
        ranks: TaskRanks = ALONE,
    ) -> None:
        self.system, self.module, self.detail, self.ranks = system, module, detail, ranks
        self.routed = Routed(module) if detail is not None else None
        self.analyse: Any = None
        if detail is not None and isinstance(system, Reporter):
            module.eval()
            with torch.inference_mode():
                self.analyse = system.analyser(module)

    def __call__(self, batch: Batch) -> dict[str, Records]:
        """Return the records of each task by its name (eval mode, no gradient)."""
        if self.routed is not None:
            self.routed.watch(batch)
        found = {
            task.name: task.records(self.system, self.module, batch, detail=self.detail, ranks=self.ranks)
            for task in self.system.tasks
        }
        more = {}
        if self.routed is not None:
            more = self.routed.columns()
            self.routed.watch(None)
        if self.analyse is not None:
            more |= self.analyse(batch)
        first = self.system.tasks[0].name
        found[first] = with_columns(found[first], more)
        return found


def measure(
    system: System[Any, Any],
    engine: MeasuringRanks,
    batches: Iterator[tuple[Batch, bool]],
    detail: EvaluateConfig | None = None,
    told: Callable[[int], None] | None = None,
) -> dict[str, Records]:
    """Return the records of each task by its name, of all ranks' examples in the order of the data, on every rank.

    Args:
        system: What is measured.
        engine: Its model, and the other ranks; each makes the same number of batches.
        batches: This rank's batches, and whether each counts.
        detail: Set where more is wanted than metrics need.
        told: Receives, after every batch, how many examples this rank has done.

    Raises:
        EvaluationError: there are no examples.
    """
    engine.module.eval()
    record = Recorder(system, engine.module, detail, engine)
    parts: list[dict[str, Records] | None] = []
    done = 0
    with torch.inference_mode():
        for batch, counts in batches:
            found = record(batch.to(engine.device))
            parts.append({name: moved(table) for name, table in found.items()} if counts else None)
            done += len(batch) if counts else 0
            if told is not None:
                told(done)
    steps = zip(*engine.gather(parts), strict=True)
    return of_all([part for step in steps for part in step if part is not None], system)


def of_all(parts: Sequence[Mapping[str, Records]], system: System[Any, Any]) -> dict[str, Records]:
    """Return the records of each task by its name, of parts that follow each other.

    Raises:
        EvaluationError: there are none.
    """
    if not parts:
        raise EvaluationError("the split has no examples, so there is nothing to measure")
    return {task.name: joined([part[task.name] for part in parts]) for task in system.tasks}


def metrics(system: System[Any, Any], records: Mapping[str, Records]) -> dict[str, float | None]:
    """Return every metric of every task, and the system's own statistics; None where no example has a value.

    Raises:
        EvaluationError: two tasks have a metric of one name.
    """
    found: dict[str, float | None] = {}
    for task in system.tasks:
        own = task.metrics(records[task.name])
        if twice := sorted(own.keys() & found.keys()):
            raise EvaluationError(f"{type(system).__name__}: two tasks measure {twice[0]!r}")
        found |= own
    if isinstance(system, Reporter):
        found |= system.statistics(records[system.tasks[0].name])
    return found


def directions(tasks: tuple[Task, ...]) -> dict[str, bool]:
    """Return every metric of some tasks, and whether higher is better."""
    return {name: higher for task in tasks for name, higher in task.directions.items()}
