"""Training on Ray from a fresh process: what is slow to import is imported while Ray starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rec.config import RunConfig
from rec.runtime.cluster import runtime, worker_environment

HEAVY = ("torch", "pandas", "pyarrow.parquet")


def train(config: RunConfig, report: Callable[[dict[str, Any]], None], say: Callable[[str], None]) -> None:
    """Do what `rec.runtime.training.train` does, a few seconds sooner."""
    parallel = config.parallel
    with runtime(parallel.cpus, worker_environment(parallel), meanwhile=HEAVY):
        from rec.runtime import training

        training.train(config, report, say)
