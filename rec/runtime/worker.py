"""What runs in every Ray Train worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import ray
import ray.train

from rec.batch import Batch
from rec.config import from_json
from rec.data.prepared import Prepared
from rec.data.stream import CachedReader
from rec.errors import RecError
from rec.storage import Storage
from rec.train.checkpoint import Checkpoint, CheckpointStore

ANSWERED = ("evaluated", "saved", "error")
"""Events that a worker waits for the driver's side to have received."""


def train_worker(payload: dict[str, Any]) -> None:
    """Train as one rank; `payload` holds the config as JSON, the step to go on from, and the monitor."""
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    monitor = payload["monitor"]
    ray.get(monitor.join.remote(rank, ray.get_runtime_context().current_actor))

    def report(event: dict[str, Any]) -> None:
        sent = monitor.put.remote(rank, event | {"rank": rank})
        if event["kind"] in ANSWERED:
            ray.get(sent)
        if event["kind"] == "evaluated":
            ray.train.report({name: value for name, value in event.items() if isinstance(value, int | float)})

    report({"kind": "placed"})
    try:
        _train(payload, rank, world_size, context, report)
    except RecError as error:
        report({"kind": "error", "type": type(error).__name__, "message": str(error)})
        raise


def _train(
    payload: dict[str, Any],
    rank: int,
    world_size: int,
    context: Any,
    report: Callable[[dict[str, Any]], None],
) -> None:
    import torch

    from rec.runtime import deepspeed
    from rec.runtime.datasets import SharedReader, StreamingReader
    from rec.train.feed import PlannedFeed
    from rec.train.job import build, write_history
    from rec.train.loop import Job, fit
    from rec.train.memory import keep_freed_memory

    config, step = from_json(payload["config"]), payload["step"]
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(context.get_local_rank()))
    torch.set_num_threads(config.parallel.threads)
    keep_freed_memory()
    report({"kind": "imported"})
    data = Prepared.open(config.data.root)
    system = build(config, data)
    storage = Storage(config.out)
    store = CheckpointStore(storage.below("checkpoints"))
    resume = store.load(step) if step is not None else None
    device = f"cuda:{ray.train.torch.get_device().index}" if config.parallel.gpu else "cpu"

    def save(checkpoint: Checkpoint, best: bool) -> None:
        store.save(checkpoint, best)
        write_history(storage, checkpoint.state)

    reader: CachedReader
    if payload["shared"]:
        reader = SharedReader(data.storage, system.columns, payload["monitor"])
    else:
        reader = StreamingReader(data.storage, system.columns)
    feed = PlannedFeed(data, system, config.train, reader, rank, world_size)
    try:
        fit(
            Job(
                system=system,
                config=config.train,
                wrap=lambda module: deepspeed.DeepSpeedEngine(module, config.train, config.parallel, device),
                feed=StartedFeed(feed, resume.state if resume else {}),
                report=report,
                save=save if rank == 0 else None,
                resume=resume,
            )
        )
    finally:
        deepspeed.close()


class StartedFeed:
    """A feed whose first epoch is being read while the engine is still being built."""

    def __init__(self, feed: Any, state: dict[str, Any]) -> None:
        self.feed, self.steps = feed, feed.steps
        self.key = (state.get("epoch", 0), state.get("step", 0))
        self.started: Iterator[tuple[Batch, bool]] | None = feed.train(*self.key)

    def train(self, epoch: int, start: int) -> Iterator[tuple[Batch, bool]]:
        """Yield this rank's batches of an epoch from step `start`."""
        started, self.started = self.started, None
        if started is not None and (epoch, start) == self.key:
            return started
        batches: Iterator[tuple[Batch, bool]] = self.feed.train(epoch, start)
        return batches

    def evaluate(self, split: str) -> Iterator[tuple[Batch, bool]]:
        """Yield this rank's batches of a split."""
        batches: Iterator[tuple[Batch, bool]] = self.feed.evaluate(split)
        return batches

    def examples(self, split: str) -> int:
        """Return how many examples a split has, over all ranks."""
        return int(self.feed.examples(split))
