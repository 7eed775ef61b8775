"""Training on Ray from a fresh process: what is slow to import is imported while Ray starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rec.config import RunConfig
from rec.runtime.cluster import Demand, cpus_to_start, refuse_shared_gpus, runtime, starting, worker_environment
from rec.storage import Storage
from rec.train.config import ParallelConfig

HEAVY = ("torch", "pandas", "pyarrow.parquet")


def train(
    config: RunConfig, report: Callable[[dict[str, Any]], None], say: Callable[[str], None], file: str | None = None
) -> None:
    """Do what `rec.runtime.training.train` does, a few seconds sooner."""
    parallel = config.parallel
    refuse_shared_gpus(parallel)
    if Storage(config.out).exists("checkpoints") and _is_over(config, say):
        return
    say(f"{config.out}: {starting()}, for {_told(parallel)} workers")
    demand, environment = Demand.by_workers(parallel), worker_environment(parallel)
    with runtime(cpus_to_start(parallel), environment, meanwhile=HEAVY, demand=demand):
        from rec.runtime import training

        training.train(config, report, say, file=file)


def _told(parallel: ParallelConfig) -> str:
    return f"{parallel.min_workers} to {parallel.workers}" if parallel.min_workers else f"{parallel.workers}"


def _is_over(config: RunConfig, say: Callable[[str], None]) -> bool:
    """Return whether nothing is left to train, and say so: that needs no Ray."""
    from rec.train.job import build, claim, nothing_left, open_data

    system = build(config, open_data(config))
    over = nothing_left(config, system, claim(config))
    if over:
        say(over)
    return over is not None
