"""The driver of a training run on Ray: places workers, follows them, and starts again from the last checkpoint."""

from __future__ import annotations

import contextlib
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
import ray.train
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rec.batch import Column
from rec.config import RunConfig, to_json
from rec.data.prepared import Prepared
from rec.errors import StorageError, TrainingError
from rec.run_folder import alone
from rec.runtime.assignment import node_of_each
from rec.runtime.cluster import QUIET, Demand, cpus_to_start, refuse_shared_gpus, runtime, worker_environment
from rec.runtime.datasets import fits_shared_memory, share
from rec.runtime.elastic import WAIT_S, WorkerChoice, release
from rec.runtime.monitor import Monitor
from rec.runtime.network import ConnectedWorkers
from rec.runtime.pump import DRIVER, Pump, describe
from rec.runtime.run_metrics import RunMetrics
from rec.runtime.versions import VersionQuery
from rec.runtime.worker import train_worker
from rec.storage import Storage, absolute
from rec.systems.api import System
from rec.train.checkpoint import CheckpointStore
from rec.train.job import SPLITS, build, check_start, claim, newest, nothing_left, open_data, tell_memory
from rec.train.loop import Report
from rec.train.phases import stretches
from rec.train.progress import TrainingProgress
from rec.train.training_record import TrainingRecord

END_S = 30.0
"""Longest wait at the end for a split that is being read."""
ERROR = "error.txt"
"""File of a run's folder with the tracebacks of workers that ended it."""


def train(
    config: RunConfig,
    report: Report,
    say: Callable[[str], None],
    stop: threading.Event | None = None,
    file: str | None = None,
    wait_s: float = WAIT_S,
) -> None:
    """Train with `parallel.workers` Ray Train workers; go on where the run's folder stands.

    A worker that is lost or hangs costs at most the work since the last checkpoint: the run starts again, up to
    `parallel.max_failures` times from one checkpoint. An error that would only repeat itself ends the run at once: one
    of our own, one that all ranks raise at one step, or one that comes again before there is any progress. Where `stop`
    gets set, the workers are ended and this returns. `file` is the TOML file of the config, where it has one, and
    `wait_s` the longest wait for nodes with room for the workers.

    Raises:
        TrainingError: too many failures, or a loss that is not finite.
        ConfigError, DataError: as the worker found them.
    """
    refuse_shared_gpus(config.parallel)
    # Workers have working folders of their own.
    start = config.train.start_from
    config = config.model_copy(
        update={
            "out": absolute(config.out),
            "data": config.data.model_copy(update={"root": absolute(config.data.root)}),
            "train": config.train.model_copy(update={"start_from": start and absolute(start)}),
        }
    )
    # What is wrong with config or data is said here, before any machine starts.
    data = open_data(config)
    system = build(config, data)
    check_start(config, system)
    with alone(config.out):
        _train(WorkerChoice(config, system, stop or threading.Event(), wait_s), system, data, report, say, file)


def _train(
    sizes: WorkerChoice,
    system: System[Any, Any],
    data: Prepared,
    report: Report,
    say: Callable[[str], None],
    file: str | None,
) -> None:
    config, columns = sizes.config, system.columns
    storage = claim(config)
    record = TrainingRecord(storage, config, data.manifest, report, file=file)
    if over := nothing_left(config, system, storage):
        say(over)
        newest(storage, say)
        _tell_end(storage, config, system, record)
        return
    parallel = config.parallel
    demand = Demand.by_workers(parallel)
    with (
        runtime(cpus_to_start(parallel), worker_environment(parallel), demand=demand),
        shared_by(data, columns) as shared,
    ):
        report = RunMetrics(config.out, record)
        report({"kind": "runtime"})
        _until_trained(sizes, system, storage, shared, report, say)
    _tell_end(storage, config, system, record)


def _until_trained(
    sizes: WorkerChoice,
    system: System[Any, Any],
    storage: Storage,
    shared: Shared | None,
    report: Report,
    say: Callable[[str], None],
) -> None:
    """Attempt to train until it is done or stopped, or fails once too often."""
    config, stop, versions = sizes.config, sizes.stop, VersionQuery()
    failures, before = 0, None
    while True:
        sized = _sized(sizes, system, report, say)
        if stop.is_set():
            return
        failure = _attempt(sized, storage, shared, report, say, stop, sizes, versions)
        if failure is None or stop.is_set():
            return
        versions.require(say)  # which may be why
        if failure.resized:
            say(f"{failure.resized}; going on from the last checkpoint")
            continue
        cause = failure.cause
        if failure.would_repeat(before, sized.parallel.workers):
            raise TrainingError(f"this would only repeat itself: {cause}{_filed(storage, failure)}")
        # A newer checkpoint since the failure before: the run gets ahead, however often it fails.
        failures = failures + 1 if before is not None and failure.start == before.start else 1
        before = failure
        if failures > config.parallel.max_failures:
            raise TrainingError(f"gave up after {failures} failures; the last: {cause}{_filed(storage, failure)}")
        say(f"failure {failures} of at most {config.parallel.max_failures}: {cause}; starting again")


def _sized(sizes: WorkerChoice, system: System[Any, Any], report: Report, say: Callable[[str], None]) -> RunConfig:
    """Return the config of the next attempt, and tell what is new about its workers."""
    before = sizes.workers
    config = sizes.choose()
    workers, most = config.parallel.workers, sizes.sizes[0]
    report({"kind": "workers", "workers": workers})
    if workers != before:
        tell_memory(system, config, say)
        if workers < most:
            say(f"{config.out}: {workers} of at most {most} workers: the cluster has no room for more")
    return config


def _tell_end(storage: Storage, config: RunConfig, system: System[Any, Any], record: TrainingRecord) -> None:
    """Tell how far a run is, though a process was stopped right after a checkpoint; delete Ray's files."""
    store = CheckpointStore(storage.below("checkpoints"))
    if steps := store.steps():
        record.settle(TrainingProgress(**store.state(steps[-1])), stretches(system, config.train))
    storage.delete("ray")


PASSING = (
    StorageError.__name__,
    OSError.__name__,
    MemoryError.__name__,
    *(kind.__name__ for kind in OSError.__subclasses__()),
)
"""Kinds of exceptions that can go away by themselves."""
MEMORY = (MemoryError.__name__, "OutOfMemoryError")
"""Kinds of which a second one at the same step tells that there is too little."""
KILLED_FOR_MEMORY = re.compile("OutOfMemoryError|low on memory")
"""What Ray says of a worker that it has killed before the kernel would."""
FROM_OTHERS = re.compile("gloo|nccl|connection|peer|socket|timed out|timeout", re.IGNORECASE)
"""What is in messages of ranks that only noticed the end of another."""


@dataclass(frozen=True, slots=True)
class AttemptFailure:
    """How an attempt at training ended."""

    cause: str
    start: int | None
    """Step of the checkpoint from which it went on."""
    raised: dict[int, tuple[str, str, int]]
    """What ranks have raised: kind, first line without digits, and at which step."""
    told: str = ""
    """All that Ray says of it, with the tracebacks of workers."""
    resized: str = ""
    """Why it was ended to start with another number of workers: that is no failure."""

    def would_repeat(self, before: AttemptFailure | None, workers: int) -> bool:
        """Return whether another attempt would end the same way.

        So it is where every rank has raised the same at the same step, and where one has raised what it did the time
        before, or was out of memory again, at the same step, without a checkpoint in between. A rank that dies or hangs
        raises nothing itself.
        """
        lasting = {
            rank: found
            for rank, found in self.raised.items()
            if found[0] not in PASSING and not FROM_OTHERS.search(f"{found[0]} {found[1]}")
        }
        if len(lasting) == workers and len(set(lasting.values())) == 1:
            return True
        if before is None or before.start != self.start:
            return False
        short = {rank: found for rank, found in self.raised.items() if found[0] in MEMORY}
        return any(before.raised.get(rank) == found for rank, found in {**lasting, **short}.items())


class Shared:
    """The splits that all workers of all attempts read from shared memory; read in a thread of the driver."""

    def __init__(self, data: Prepared, columns: Sequence[Column]) -> None:
        self.ready: dict[str, Future[list[Any]]] = {split: Future() for split in SPLITS}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._read, args=(data, columns), daemon=True, name="shared")
        self.thread.start()

    def end(self) -> None:
        """Read no further split, and wait for the one that is being read: Ray ends a process that asks it later."""
        self.over.set()
        self.thread.join(END_S)

    def _read(self, data: Prepared, columns: Sequence[Column]) -> None:
        for split, future in self.ready.items():
            if self.over.is_set():
                return
            try:
                future.set_result(share(data, split, columns))
            except Exception as error:
                future.set_exception(error)

    def offer_to(self, monitor: Any) -> None:
        """Hand every split to a monitor as soon as it is read."""
        for split, future in self.ready.items():
            future.add_done_callback(partial(_offer, monitor, split))


@contextlib.contextmanager
def shared_by(data: Prepared, columns: Sequence[Column]) -> Iterator[Shared | None]:
    """Have the splits read for all workers inside, where they fit into shared memory."""
    shared = Shared(data, columns) if fits_shared_memory(data, SPLITS) else None
    try:
        yield shared
    finally:
        if shared is not None:
            shared.end()


def _attempt(
    config: RunConfig,
    storage: Storage,
    shared: Shared | None,
    report: Report,
    say: Callable[[str], None],
    stop: threading.Event,
    sizes: WorkerChoice,
    versions: VersionQuery,
) -> AttemptFailure | None:
    """Run once from the newest whole checkpoint; return how it failed, None where it finished."""
    release()  # of attempts before
    step = newest(storage, say, deep=False)  # workers look at every byte, each at its share
    if step is not None:
        say(f"{config.out}: going on from step {step}")
    # It lives with the driver: on another node it would be lost with that.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    monitor = Monitor.options(scheduling_strategy=here).remote()
    payload = {"config": to_json(config), "step": step, "monitor": monitor, "shared": shared is not None}
    trainer = _trainer(config, payload)
    look = partial(versions.look, say)
    pump = Pump(monitor, report, config.parallel.stall_timeout_s, stop, sizes, trainer.abandon, say, look)
    pump.start()
    if shared is not None:
        shared.offer_to(monitor)
    try:
        with pump.waiting:
            trainer.fit()
        pump.stop()
        return AttemptFailure(pump.resized, step, {}, resized=pump.resized) if pump.leaving and pump.resized else None
    except ray.exceptions.RayError as error:
        ended: Exception = error
    except ray.train.TrainingFailedError as error:
        ended = error
    finally:
        pump.stop()
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(monitor)
    if pump.error is not None:
        versions.require(say)  # another version of ours may be why
        raise pump.error
    if pump.resized:
        return AttemptFailure(pump.resized, step, {}, resized=pump.resized)
    told = "\n".join(str(one) for one in (ended, *getattr(ended, "worker_failures", {}).values()))
    raised = {} if pump.stalled else pump.raised | killed_for_memory(ended, pump.last)
    return AttemptFailure(pump.stalled or _cause(ended, pump.last), step, raised, told)


def killed_for_memory(ended: Exception, last: Mapping[int, Mapping[str, Any]]) -> dict[int, tuple[str, str, int]]:
    """Return the ranks that Ray has killed for want of memory, as if they had raised that at their last known step."""
    return {
        rank: (MEMORY[1], "", last.get(rank, {}).get("total_step", 0))
        for rank, error in getattr(ended, "worker_failures", {}).items()
        if KILLED_FOR_MEMORY.search(f"{type(error).__name__}: {error}")
    }


def _filed(storage: Storage, failure: AttemptFailure) -> str:
    """Write what is known of an exception that workers have raised; return where it stands."""
    if not failure.raised:
        return ""
    storage.write(ERROR, failure.told.encode())
    return f"; what is known of it stands in {storage.uri_of(ERROR)}"


def _offer(monitor: Any, split: str, done: Future[list[Any]]) -> None:
    error = done.exception()
    if error is None:
        monitor.offer.remote(split, done.result())
    else:
        message = f"split {split!r} cannot be read: {error}"
        monitor.put.remote(DRIVER, {"kind": "error", "rank": DRIVER, "type": "DataError", "message": message})


class Trainer(DataParallelTrainer):  # type: ignore[misc]
    """Ray's trainer without two processes that every run would start for nothing.

    One manages Ray Train's own data sets, of which there are none. The other asks the dashboard every second whether
    the controller was killed, to remove what it has reserved: `release` does that before the next attempt.
    """

    def _create_default_callbacks(self) -> list[Any]:
        unused = ("DatasetsCallback", "PlacementGroupCleanerCallback")
        return [c for c in super()._create_default_callbacks() if type(c).__name__ not in unused]

    controller: Any = None
    """The actor that runs an attempt, known where the main thread waits for it."""

    def _register_sigint_handler(self, controller: Any) -> None:
        """Leave Ctrl-C to the command: Ray's handler ends the process by itself, with another exit code."""
        self.controller = controller

    def abandon(self) -> None:
        """End an attempt whose workers are not placed yet: Ray would wait for their place."""
        if self.controller is not None:
            ray.kill(self.controller)


def _for_ray(out: str) -> str:
    """Return where Ray Train writes its notes: nobody reads them, and a store that fails would end the attempt."""
    storage = Storage(out)
    return storage.path("ray") if storage.is_local else f"{ray._private.worker._global_node.get_session_dir_path()}/rec"


def _trainer(config: RunConfig, payload: dict[str, Any]) -> Trainer:
    parallel = config.parallel
    environment = {**QUIET, **worker_environment(parallel)}
    collective_s = max(60.0, 4 * parallel.stall_timeout_s)
    return Trainer(
        train_worker,
        train_loop_config=payload,
        backend_config=ConnectedWorkers(backend="nccl" if parallel.gpu else "gloo", timeout_s=int(collective_s)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=parallel.workers,
            use_gpu=parallel.gpu,
            resources_per_worker=parallel.worker_resources,
            label_selector=node_of_each(parallel),
        ),
        run_config=ray.train.RunConfig(
            # A name that was used before would make Ray Train resume by itself.
            name=f"attempt-{uuid.uuid4().hex[:8]}",
            storage_path=_for_ray(config.out),
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=0),
            worker_runtime_env={"env_vars": environment},
        ),
    )


def _cause(failure: Exception, last: dict[int, dict[str, Any]]) -> str:
    """Return one line on why workers failed: which ranks, the error, and how far they had come."""
    parts = []
    for rank, error in sorted(getattr(failure, "worker_failures", {}).items()):
        text = str(error).strip().splitlines()
        parts.append(f"rank {rank} after {describe(last.get(rank, {}))}: {text[-1] if text else type(error).__name__}")
    if not parts:
        # A failure of Ray Train's own controller is told below a title.
        text = str(failure).strip().splitlines() or [type(failure).__name__]
        parts = [f"{text[0]} {text[-1].strip()}" if text[0].endswith(":") and text[1:] else text[0]]
    return "; ".join(parts)
