"""Preparing a data set with Ray Data: every part of a pass is a task, encoders are a pool of actors."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray.data
from ray import cloudpickle

from rec.data import prepare as passes
from rec.data.config import DataConfig
from rec.data.modalities.config import WriterConfig
from rec.data.prepared import Prepared
from rec.data.runner import Actors, InProcess, Pool
from rec.errors import RecError
from rec.progress import Progress
from rec.runtime.cluster import Demand, runtime, starting
from rec.runtime.pool import ActorPool, vllm_pool

T = TypeVar("T")
R = TypeVar("R")


class OnRay:
    """Runs the parts of a pass as Ray Data tasks, one CPU each."""

    def map(self, function: Callable[[T], R], tasks: Sequence[T], title: str) -> list[R]:
        """Return `function(task)` for every task; a single one runs here, as starting a job takes about a second."""
        if len(tasks) == 1:
            return InProcess().map(function, tasks, title)
        packed = cloudpickle.dumps(function)

        def run(row: dict[str, Any]) -> dict[str, Any]:
            result, error = _call(pickle.loads(packed), row["task"])
            return {"index": row["index"], "result": result, "error": error}

        return self._collect(tasks, title, lambda dataset: dataset.map(run, num_cpus=1))

    def map_actors(
        self, make: Callable[[], Callable[[T], R]], tasks: Sequence[T], title: str, actors: Actors
    ) -> list[R]:
        """Return `make()(task)` for every task, computed by a pool of actors that live until the last task."""
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(actors.count, len(tasks))))
        resources: dict[str, Any] = {"num_cpus": actors.cpus, "num_gpus": actors.gpus or None}
        maker = cloudpickle.dumps(make)
        return self._collect(
            tasks,
            title,
            lambda dataset: dataset.map_batches(
                _Actor, fn_constructor_args=(maker,), batch_size=1, compute=pool, **resources
            ),
        )

    def pool(self, make: Callable[[], Callable[[Any], Any]], actors: Actors) -> Pool:
        """Return actors that call `make()(task)` for tasks that are not all known beforehand."""
        return ActorPool(make, actors)

    def vllm_pool(self, config: WriterConfig) -> Pool:
        """Return what answers lists of conversations with vLLM."""
        return vllm_pool(config)

    def _collect(self, tasks: Sequence[Any], title: str, apply: Callable[[Any], Any]) -> list[Any]:
        """Return the results of all tasks, in order, while showing how many are done."""
        if not tasks:
            return []
        rows = [{"index": i, "task": cloudpickle.dumps(task)} for i, task in enumerate(tasks)]
        done: dict[int, bytes] = {}
        with Progress(title, len(tasks)) as progress:
            for row in apply(ray.data.from_items(rows, override_num_blocks=len(rows))).iter_rows():
                if row["error"]:
                    raise pickle.loads(row["error"])
                done[row["index"]] = row["result"]
                progress.show(len(done))
        return [pickle.loads(done[i]) for i in range(len(tasks))]


class _Actor:
    """One actor of a pool: makes its function once."""

    def __init__(self, make: bytes) -> None:
        try:
            self.function: Any = pickle.loads(make)()
            self.error = b""
        except RecError as error:  # told with the first task: a failing actor would be restarted for ever
            self.error = pickle.dumps(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the task's result, or the error that is ours to tell."""
        index = batch["index"]
        if self.error:
            return {"index": index, "result": [b""], "error": [self.error]}
        result, error = _call(self.function, batch["task"][0])
        return {"index": index, "result": [result], "error": [error]}


def _call(function: Callable[[Any], Any], task: bytes) -> tuple[bytes, bytes]:
    """Return the pickled result, or the pickled error where it is one of ours."""
    try:
        return pickle.dumps(function(pickle.loads(task))), b""
    except RecError as error:
        return b"", pickle.dumps(error)


def prepare(
    config: DataConfig, say: Callable[[str], None], views: Sequence[str] = (), cpus: int = 2, *, again: bool = False
) -> Prepared:
    """Return the data set made from `config` on the cluster, or on this machine with `cpus` tasks at a time."""
    return with_runner(config, say, lambda runner: passes.prepare(config, runner, say, views, again=again), cpus)


def with_runner(config: DataConfig, say: Callable[[str], None], work: Callable[[OnRay], T], cpus: int = 2) -> T:
    """Return what `work` does on the cluster, or on this machine with `cpus` tasks at a time."""
    needed, demand = 0, None
    if config.modalities is not None and config.modalities.writer.kind == "local":
        keys, at = config.modalities.writer, "data.modalities.writer"
        needed = math.ceil(keys.actors * keys.cpus_per_actor)
        remedy = f"lower it, or {at}.cpus_per_actor and {at}.gpus_per_actor"
        gpus = keys.actors * keys.gpus_per_actor
        demand = Demand(
            keys.actors * keys.cpus_per_actor, gpus, f"{at}.actors", remedy, "models", gpu_key=f"{at}.gpus_per_actor"
        )
    if (encode := config.encode) is not None:
        needed = max(needed, math.ceil(encode.actors * encode.cpus_per_actor))
        remedy = "lower it, or data.encode.cpus_per_actor and data.encode.gpus_per_actor"
        gpus = encode.actors * encode.gpus_per_actor
        cpus_each, key = encode.cpus_per_actor, "data.encode.gpus_per_actor"
        each = {"CPU": cpus_each, "GPU": encode.gpus_per_actor}
        demand = Demand(
            encode.actors * cpus_each, gpus, "data.encode.actors", remedy, "encoders", key, each, count=encode.actors
        )
    say(f"{config.root}: {starting()}, to prepare")
    with runtime(max(cpus, needed) - 1, demand=demand):
        return work(OnRay())
