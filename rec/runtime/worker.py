"""What runs in every Ray Train worker."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle

from rec.batch import Batch
from rec.config import from_json
from rec.data.prepared import open_prepared
from rec.data.stream import Reader
from rec.errors import RecError, StorageError
from rec.provenance import machine
from rec.runtime.network import tell_ray, train_context
from rec.storage import Storage
from rec.systems.api import Phase
from rec.train.checkpoint import Checkpoint, CheckpointStore
from rec.train.config import ParallelConfig
from rec.train.own_time import OwnTime
from rec.train.ranks import Ranks
from rec.train.update import Left

if TYPE_CHECKING:
    from rec.train.feed import Microbatches, PlannedFeed
    from rec.train.phases import Stretch

BEAT_S = 2.0
"""Seconds between events that tell that files are being read or written."""
WAITS_S, STALL_SHARE = 10.0, 3
"""A worker tells that it waits for others after so many seconds, or this part of the patience with silence."""
ANSWERED = ("evaluated", "saved", "left", "error", "raised")
"""Events that a worker waits for the driver's side to have received."""


def train_worker(payload: dict[str, Any]) -> None:
    """Train as one rank; `payload` holds the config as JSON, the step to go on from, and the monitor."""
    context = train_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    monitor = payload["monitor"]
    stands = {"total_step": payload["step"] or 0}
    ray.get(monitor.join.remote(rank, cloudpickle.dumps(ray.get_runtime_context().current_actor)))

    leaves, waits = Leaves(), Waits(OwnTime(), lambda: monitor.wait.remote(rank))

    def report(event: dict[str, Any]) -> None:
        waits.heard()
        stands["total_step"] = event.get("total_step", stands["total_step"])
        sent = monitor.put.remote(rank, stands | event | {"rank": rank})
        if event["kind"] == "step":
            leaves.answer = sent
        if event["kind"] in ANSWERED:
            ray.get(sent)
        if event["kind"] == "evaluated":
            tell_ray({name: value for name, value in event.items() if isinstance(value, int | float)})

    report({"kind": "placed", "node": ray.util.get_node_ip_address(), "node_id": node_id()})
    try:
        _train(payload, rank, world_size, context, report, leaves, waits)
    except Left:
        report({"kind": "left", **stands})
    except StorageError as error:  # which may answer again
        report({"kind": "raised", "type": StorageError.__name__, "message": first_line(error), **stands})
        raise
    except RecError as error:
        report({"kind": "error", "type": type(error).__name__, "message": str(error)})
        raise
    except Exception as error:
        # The driver compares what ranks and attempts say: what all say at one step would only be said again.
        report({"kind": "raised", "type": type(error).__name__, "message": first_line(error), **stands})
        raise


class Leaves:
    """Tells whether the driver wants the run to end with a checkpoint, as it answers to events; never waits for it."""

    def __init__(self) -> None:
        self.answer: Any = None

    def __call__(self) -> bool:
        """Return whether the last answer that is there says so."""
        if self.answer is None or not ray.wait([self.answer], timeout=0)[0]:
            return False
        answer, self.answer = self.answer, None
        return bool(ray.get(answer))


class Waits:
    """Tells that a rank waits for others: of ranks that said the same last, it is not the one that hangs."""

    def __init__(self, own: OwnTime, tell: Callable[[], object]) -> None:
        self.own, self.tell = own, tell
        self.ended = threading.Event()
        self.heard()

    def heard(self) -> None:
        """Take note that the rank has said something."""
        self.heard_s, self.told = time.monotonic(), False

    @contextmanager
    def told_after(self, seconds: float) -> Iterator[None]:
        """Be inside while the rank works; it is told once, after so many seconds in which it said nothing."""
        thread = threading.Thread(target=self._look, args=(seconds,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.ended.set()
            thread.join()

    def _look(self, seconds: float) -> None:
        while not self.ended.wait(min(1.0, seconds / 4)):
            if self.own.waits and not self.told and time.monotonic() - self.heard_s >= seconds:
                self.told = True
                self.tell()


def node_id() -> str:
    """Return the node of this process."""
    return str(ray.get_runtime_context().get_node_id())


class Beat:
    """Reports now and then, while files are read or written, that this rank is not stuck."""

    def __init__(self, report: Callable[[dict[str, Any]], None], every_s: float = BEAT_S) -> None:
        self.report, self.every_s, self.told_s = report, every_s, time.monotonic()

    def __call__(self) -> None:
        """Take note that a part of a file is done."""
        if time.monotonic() - self.told_s >= self.every_s:
            self.told_s = time.monotonic()
            self.report({"kind": "moving files"})


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [""])[0]


def _train(
    payload: dict[str, Any],
    rank: int,
    world_size: int,
    context: Any,
    report: Callable[[dict[str, Any]], None],
    leaves: Leaves,
    waits: Waits,
) -> None:
    from rec.evaluation.measure import directions
    from rec.runtime import deepspeed
    from rec.runtime.datasets import SharedReader, StreamingReader
    from rec.runtime.ranks import TorchRanks
    from rec.train.feed import PlannedFeed
    from rec.train.job import build, write_history
    from rec.train.loop import Job, fit
    from rec.train.memory import refuse_beyond
    from rec.train.phases import stretches
    from rec.train.saver import Saver
    from rec.train.start import start_of

    config, step = from_json(payload["config"]), payload["step"]
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(context.get_local_rank()))
    device = _device(config.parallel)
    report({"kind": "imported", "machine": machine(device)})
    data = open_prepared(config)
    system = build(config, data)
    refuse_beyond(system.memory(config.train, config.parallel), device, config.parallel)
    storage = Storage(config.out, beat=Beat(report))
    store, ranks = CheckpointStore(storage.below("checkpoints")), TorchRanks(device)
    nodes = ranks.gather(ray.get_runtime_context().get_node_id())
    resume = resumed(store, ranks, step, report) if step is not None else None
    reader: Reader
    if payload["shared"]:
        reader = SharedReader(data.storage, system.columns, payload["monitor"])
    else:
        reader = StreamingReader(data, system.columns, context.get_experiment_name())
    feed = PlannedFeed(data, system, config.train, reader, rank, world_size)
    try:
        with waits.told_after(min(WAITS_S, config.parallel.stall_timeout_s / STALL_SHARE)):
            fit(
                Job(
                    system=system,
                    config=config.train,
                    wrap=lambda module, keys: deepspeed.DeepSpeedEngine(module, keys, config.parallel, device, nodes),
                    feed=StartedFeed(feed, *first_epoch(stretches(system, config.train), resume)),
                    report=report,
                    saver=Saver(store, ranks, partial(write_history, storage)),
                    resume=resume,
                    start=start_of(config.train.start_from, checked=True) if resume is None else None,
                    ranks=ranks,
                    leaves=leaves,
                    directions=directions(system.tasks),
                    own=waits.own,
                )
            )
    finally:
        deepspeed.close()


def _device(parallel: ParallelConfig) -> str:
    """Return where this worker computes, after telling torch with how many threads."""
    import torch

    from rec.train.memory import keep_freed_memory

    torch.set_num_threads(parallel.threads)
    keep_freed_memory()
    return f"cuda:{torch.cuda.current_device()}" if parallel.gpu else "cpu"


def resumed(
    store: CheckpointStore, ranks: Ranks, most: int, report: Callable[[dict[str, Any]], None]
) -> Checkpoint | None:
    """Return the newest whole checkpoint up to a step after ranks have looked at all bytes of it, shared out."""
    step, faults = store.newest_valid(ranks, most)
    if faults:
        goes = "starting again" if step is None else f"going on from step {step}"
        report({"kind": "note", "text": f"damaged checkpoint passed over: {'; '.join(faults)}; {goes}"})
    return None if step is None else store.load(step, ranks, checked=True)


def first_epoch(found: Sequence[Stretch], resume: Checkpoint | None) -> tuple[Phase | None, int, int]:
    """Return the phase, epoch and step whose batches come first; no phase where others are wanted before them."""
    from rec.train.phases import has_ended
    from rec.train.progress import TrainingProgress

    progress = TrainingProgress(**resume.state) if resume else TrainingProgress()
    stretch = found[progress.phase]
    if has_ended(progress, stretch.config) or (resume is None and stretch.phase.before is not None):
        return None, 0, 0
    return stretch.phase, progress.epoch, progress.step


class StartedFeed:
    """A feed whose first epoch is being read while the engine is still being built."""

    def __init__(self, feed: PlannedFeed, phase: Phase | None, epoch: int, step: int) -> None:
        self.feed = feed
        self.key = (phase.name if phase else "", epoch, step)
        self.started = feed.train(phase, epoch, step) if phase else None

    def steps(self, phase: Phase) -> int:
        """Return the optimiser steps per epoch of a phase."""
        return self.feed.steps(phase)

    def train(self, phase: Phase, epoch: int, start: int) -> Iterator[Microbatches]:
        """Yield this rank's batches of an epoch of a phase from step `start`, in microbatches."""
        started, self.started = self.started, None
        if started is not None and (phase.name, epoch, start) == self.key:
            return started
        return self.feed.train(phase, epoch, start)

    def evaluate(self, split: str, share: float = 1.0) -> Iterator[tuple[Batch, bool]]:
        """Yield this rank's batches of a split, or of a share of it."""
        return self.feed.evaluate(split, share)

    def examples(self, split: str) -> int:
        """Return how many examples a split has, over all ranks."""
        return self.feed.examples(split)
