"""How many workers a run has: as many as the cluster has room for, between two numbers.

Ray Train's own elastic policy knows neither which numbers divide a batch and the experts' ranks nor when a checkpoint
is whole; here the driver chooses before every attempt, and starts a larger one right after a checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rec.config import RunConfig
from rec.errors import ConfigError
from rec.keys import ParallelConfig
from rec.runtime.cluster import SPARE_CPUS, fitting, living_nodes
from rec.systems.api import System
from rec.train.phases import stretches

GROW_S = 60.0
"""Fewest seconds that a number of workers is kept before more are looked for."""


def sizes(config: RunConfig, system: System[Any, Any]) -> tuple[int, ...]:
    """Return the numbers of workers that a run may have, the largest first: they divide batches and experts' ranks."""
    parallel = config.parallel
    batches = [stretch.config.batch_size for stretch in stretches(system, config.train)]
    return tuple(
        count
        for count in range(parallel.workers, parallel.fewest - 1, -1)
        if count % parallel.expert_parallel == 0 and not any(size % count for size in batches)
    )


def room(parallel: ParallelConfig, nodes: Sequence[Mapping[str, float]]) -> int:
    """Return how many workers the nodes have room for, with a CPU left for data."""
    free = sum(node.get("CPU", 0.0) for node in nodes) - SPARE_CPUS
    return min(fitting(parallel.worker_resources, nodes), int(free / parallel.worker_resources["CPU"] + 1e-9))


class Sizes:
    """Chooses the number of workers of each attempt."""

    def __init__(self, config: RunConfig, system: System[Any, Any]) -> None:
        self.config, self.sizes = config, sizes(config, system)
        self.workers, self.since_s = 0, 0.0

    def choose(self) -> RunConfig:
        """Return the config of the next attempt: the most workers that fit now, or the fewest, which may wait."""
        self.workers, self.since_s = self._fitting(), time.monotonic()
        update = {"workers": self.workers, "min_workers": 0}
        return self.config.model_copy(update={"parallel": self.config.parallel.model_copy(update=update)})

    def may_grow(self) -> bool:
        """Return whether more workers fit than there are, and those have been there for a while."""
        if self.workers == self.sizes[0] or time.monotonic() - self.since_s < GROW_S:
            return False
        self.since_s = time.monotonic()
        return self._fitting() > self.workers

    def _fitting(self) -> int:
        if len(self.sizes) == 1:
            return self.sizes[0]
        most = room(self.config.parallel, living_nodes())
        return next((size for size in self.sizes if size <= most), self.sizes[-1])


def refuse_elastic(parallel: ParallelConfig, what: str) -> None:
    """Check that the number of workers is fixed.

    Raises:
        ConfigError: it is not.
    """
    if parallel.min_workers:
        raise ConfigError(f"parallel.min_workers: has no effect in {what}, whose workers are as many; leave it out")
