"""Batches made ahead of the loop in a thread of their own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch

from rec.batch import Batch, Columns
from rec.data.prepared import Prepared
from rec.data.stream import Plan, Reader
from rec.errors import ConfigError
from rec.seeds import derive
from rec.systems.api import Phase, System
from rec.train.config import TrainConfig
from rec.train.engine import Engine
from rec.train.phases import key_of, resolved

T = TypeVar("T")
Microbatches = tuple[tuple[Batch, bool], ...]
"""What a rank computes for one optimiser step, and whether each part of it counts."""
AHEAD = 2


class PlannedFeed:
    """One rank's share of the planned order of each split."""

    def __init__(
        self, data: Prepared, system: System[Any, Any], config: TrainConfig, reader: Reader, rank: int, world_size: int
    ) -> None:
        self.data, self.system, self.config, self.reader = data, system, config, reader
        self.rank, self.world_size = rank, world_size

    def plan(self, phase: Phase) -> Plan:
        """Return the order of the training rows in a phase.

        Raises:
            ConfigError: the workers cannot share its batch.
        """
        size = resolved(phase, self.config).batch_size
        if size % self.world_size:
            key = key_of(phase, self.config, "batch_size")
            raise ConfigError(f"{key}: must be a multiple of {self.world_size} workers, got {size}")
        return Plan(tuple(self.data.files("train")), size, self.config.shuffle_window, self.config.seed)

    def steps(self, phase: Phase) -> int:
        """Return the optimiser steps per epoch of a phase."""
        return self.plan(phase).steps

    def train(self, phase: Phase, epoch: int, start: int) -> Iterator[Microbatches]:
        """Yield this rank's batches of an epoch of a phase from step `start`, in microbatches."""
        return Ahead(self._steps(self.plan(phase), epoch, start, resolved(phase, self.config)))

    def evaluate(self, split: str, share: float = 1.0) -> Iterator[tuple[Batch, bool]]:
        """Yield this rank's batches of a split, in the order of its files.

        With a share below 1, only so many of its rows, the same ones each time.
        """
        files, reader = tuple(self.data.files(split)), self.reader
        if share < 1:
            chosen = RowSample(reader, files, share, derive(self.config.seed, "share", split))
            files, reader = chosen.files, chosen
        size = self.config.evaluate_batch_size * self.world_size
        return Ahead(self._batches(Plan(files, size, 0, 0), 0, 0, reader))

    def examples(self, split: str) -> int:
        """Return how many examples a split has, over all ranks."""
        return self.data.split_rows(split)

    def _steps(self, plan: Plan, epoch: int, start: int, config: TrainConfig) -> Iterator[Microbatches]:
        rows = plan.batches(self.reader, epoch=epoch, start=start, rank=self.rank, world_size=self.world_size)
        for columns, counts in rows:
            yield self._cut(columns, counts, config)

    def _cut(self, columns: Columns, counts: bool, config: TrainConfig) -> Microbatches:
        """Return rows of a step as microbatches."""
        if config.tokens:
            cut = in_budgets(columns, self.system.lengths(columns), config.tokens)
            parts = [(part, True) for part in cut]
        else:
            parts = list(in_parts(columns, config.accumulate))
        return tuple((self.system.collate(part), counts and whole) for part, whole in parts)

    def sample(self, phase: Phase, most: int) -> tuple[Microbatches, float]:
        """Return this rank's microbatches of the first step of a phase, and how many times as many rows they have.

        Those of more than `most` rows are cut down to these.
        """
        config = resolved(phase, self.config)
        plan = self.plan(phase)
        batches = plan.batches(self.reader, epoch=0, start=0, rank=self.rank, world_size=self.world_size)
        columns, counts = next(iter(batches))
        rows = min((len(column) for column in columns.values()), default=0)
        kept = min(rows, most * config.accumulate)
        columns = {name: column[:kept] for name, column in columns.items()}
        return self._cut(columns, counts, config), rows / max(1, kept)

    def _batches(
        self, plan: Plan, epoch: int, start: int, reader: Reader | None = None
    ) -> Iterator[tuple[Batch, bool]]:
        rows = plan.batches(reader or self.reader, epoch=epoch, start=start, rank=self.rank, world_size=self.world_size)
        for columns, counts in rows:
            yield self.system.collate(columns), counts


def in_parts(columns: Columns, parts: int) -> Iterator[tuple[Columns, bool]]:
    """Yield rows in so many contiguous parts, and whether each has a row of its own: one that has none is a stand-in.

    Ranks and steps have as many parts however few rows there are.
    """
    rows = min((len(column) for column in columns.values()), default=0)
    for part in range(parts):
        start, end = rows * part // parts, rows * (part + 1) // parts
        some = slice(start, end) if start < end else slice(0, 1)
        yield {name: column[some] for name, column in columns.items()}, start < end


def in_budgets(columns: Columns, length_B: np.ndarray, most: int) -> Iterator[Columns]:
    """Yield rows in parts whose rows times their longest are at most so many, the longest first; one row at least."""
    if len(length_B) * int(length_B.max(initial=0)) <= most:
        yield columns
        return
    order, start = np.argsort(-length_B, kind="stable"), 0
    while start < len(order):
        end = start + max(1, most // max(1, int(length_B[order[start]])))
        rows, start = np.sort(order[start:end]), end
        yield {name: rows_of(column, rows) for name, column in columns.items()}


def rows_of(column: Any, rows: np.ndarray) -> Any:
    """Return some rows of a column."""
    return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]


def levelled(micro: Microbatches, engine: Engine) -> Microbatches:
    """Return microbatches as many as any rank has, where stand-ins count nowhere: ranks pass through all together.

    It is a collective of its own.
    """
    own = torch.zeros(engine.world_size)
    own[engine.rank] = len(micro)
    missing = int(engine.sum_over_ranks(own).max()) - len(micro)
    return micro + ((micro[-1][0], False),) * missing


class RowSample:
    """Reads a share of the rows of files, at least one of them, drawn once."""

    def __init__(self, reader: Reader, files: Sequence[tuple[str, int]], share: float, seed: int) -> None:
        self.reader = reader
        total = sum(rows for _, rows in files)
        count = min(total, max(1, round(share * total)))
        chosen = np.sort(np.random.default_rng(seed).permutation(total)[:count])
        starts = np.cumsum([0, *(rows for _, rows in files)])
        self.rows = {
            name: chosen[(chosen >= start) & (chosen < start + rows)] - start
            for (name, rows), start in zip(files, starts, strict=False)
        }
        self.files = tuple((name, len(self.rows[name])) for name, _ in files if len(self.rows[name]))

    def read(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the chosen rows of these files, in this order."""
        for name, table in zip(names, self.reader.read(names), strict=True):
            yield table.take(pa.array(self.rows[name]))


class Ahead(Iterator[T]):
    """Yields what `items` yields, made up to two items ahead in a thread; an error there is raised here.

    The thread starts at once, so that slow first items are made while the caller still prepares. It ends when this
    object is dropped.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self.made: queue.Queue[tuple[str, Any]] = queue.Queue(AHEAD)
        self.closed = threading.Event()
        threading.Thread(target=_make, args=(items, self.made, self.closed), daemon=True, name="feed").start()

    def __next__(self) -> T:
        """Return the next item."""
        kind, value = self.made.get()
        if kind == "end":
            self.made.put((kind, value))
            raise StopIteration
        if kind == "error":
            raise value
        item: T = value
        return item

    def __del__(self) -> None:
        self.closed.set()


def _make(items: Iterator[Any], made: queue.Queue[tuple[str, Any]], closed: threading.Event) -> None:
    """Put every item into the queue, then the end or the error that ended it."""

    def put(kind: str, value: Any) -> bool:
        while not closed.is_set():
            try:
                made.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    try:
        for item in items:
            if not put("item", item):
                return
        put("end", None)
    except BaseException as error:
        put("error", error)
