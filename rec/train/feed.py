"""Batches made ahead of the loop in a thread of their own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

from rec.batch import Batch
from rec.data.prepared import Prepared
from rec.data.stream import Plan, Reader
from rec.errors import ConfigError
from rec.keys import TrainConfig
from rec.system import System

T = TypeVar("T")
AHEAD = 2


class PlannedFeed:
    """One rank's share of the planned order of each split."""

    def __init__(
        self, data: Prepared, system: System[Any, Any], config: TrainConfig, reader: Reader, rank: int, world_size: int
    ) -> None:
        if config.batch_size % world_size:
            raise ConfigError(f"train.batch_size: must be a multiple of {world_size} workers, got {config.batch_size}")
        self.data, self.system, self.config, self.reader = data, system, config, reader
        self.rank, self.world_size = rank, world_size
        self.plan = Plan(tuple(data.files("train")), config.batch_size, config.shuffle_window, config.seed)
        self.steps = self.plan.steps

    def train(self, epoch: int, start: int) -> Iterator[tuple[Batch, bool]]:
        """Yield this rank's batches of an epoch from step `start`."""
        return Ahead(self._batches(self.plan, epoch, start))

    def evaluate(self, split: str) -> Iterator[tuple[Batch, bool]]:
        """Yield this rank's batches of a split, in the order of its files."""
        size = self.config.evaluate_batch_size * self.world_size
        return Ahead(self._batches(Plan(tuple(self.data.files(split)), size, 0, 0), 0, 0))

    def examples(self, split: str) -> int:
        """Return how many examples a split has, over all ranks."""
        return self.data.split_rows(split)

    def _batches(self, plan: Plan, epoch: int, start: int) -> Iterator[tuple[Batch, bool]]:
        rows = plan.batches(self.reader, epoch=epoch, start=start, rank=self.rank, world_size=self.world_size)
        for columns, counts in rows:
            yield self.system.collate(columns), counts


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
