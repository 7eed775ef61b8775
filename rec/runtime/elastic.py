"""How many workers a run has: as many as the cluster has room for, between two numbers.

Ray Train's own elastic policy knows neither which numbers divide a batch and the experts' ranks nor when a checkpoint
is whole; here the driver chooses before every attempt, and starts a larger one right after a checkpoint.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.core.generated import gcs_pb2
from ray.util.placement_group import PlacementGroup, remove_placement_group

from rec.cluster.machines import sizes
from rec.config import RunConfig
from rec.errors import ConfigError, TrainingError
from rec.progress import Progress
from rec.runtime.cluster import SPARE_CPUS, fitting, living_nodes
from rec.sections import counted
from rec.systems.api import System
from rec.train.config import ParallelConfig

ELASTIC = ("min_workers", "grow_s")
"""Keys of a number of workers that may change."""
NOBODY = ray.ActorID.nil().binary()
REMOVED = gcs_pb2.PlacementGroupTableData.REMOVED
WAIT_S, POLL_S = 300.0, 2.0
"""Longest wait for nodes with room for the fewest workers, and seconds between looks."""


def room(parallel: ParallelConfig, nodes: Collection[Mapping[str, float]]) -> int:
    """Return how many workers the nodes have room for, with a CPU left for data."""
    free = sum(node.get("CPU", 0.0) for node in nodes) - SPARE_CPUS
    return min(fitting(parallel.worker_resources, nodes), int(free / parallel.worker_resources["CPU"] + 1e-9))


class WorkerChoice:
    """Chooses the number of workers of each attempt."""

    def __init__(
        self, config: RunConfig, system: System[Any, Any], stop: threading.Event, wait_s: float = WAIT_S
    ) -> None:
        """Choose for a run; where `stop` gets set, nothing is waited for, and for room at most so many seconds."""
        self.stop, self.asked_s, self.wait_s = stop, 0.0, wait_s
        self.config, self.sizes = config, sizes(config, system)
        self.workers, self.since_s = 0, 0.0

    def choose(self) -> RunConfig:
        """Return the config of the next attempt: with the most workers that living nodes have room for.

        Raises:
            TrainingError: for long there was no room for the fewest.
        """
        if (found := self._fitting()) is None:
            found = self._waited()
        self.workers = found
        self.since_s = self.asked_s = time.monotonic()
        # What only the driver needs would be refused beside a fixed number.
        fixed = {"workers": self.workers, **{name: ParallelConfig.model_fields[name].default for name in ELASTIC}}
        return self.config.model_copy(update={"parallel": self.config.parallel.model_copy(update=fixed)})

    def may_grow(self) -> bool:
        """Return whether more workers fit than there are, and those have been there for a while."""
        if self.workers == self.sizes[0] or time.monotonic() - self.since_s < self.config.parallel.grow_s:
            return False
        self.since_s = time.monotonic()
        return (self._fitting() or 0) > self.workers

    def must_shrink(self) -> bool:
        """Return whether living nodes have no room for the workers of this attempt any more; asked now and then."""
        if time.monotonic() - self.asked_s < POLL_S:
            return False
        self.asked_s = time.monotonic()
        return fitting(self.config.parallel.worker_resources, living_nodes().values()) < self.workers

    def _waited(self) -> int:
        """Return the number of workers that fit once enough nodes are there."""
        fewest, deadline_s = self.sizes[-1], time.monotonic() + self.wait_s
        asked = [*[self.config.parallel.worker_resources] * fewest, {"CPU": float(SPARE_CPUS)}]
        with Progress(f"waiting for nodes with room for {counted(fewest, 'worker')}"), wished(asked):
            while (found := self._fitting()) is None and not self.stop.wait(POLL_S):
                if time.monotonic() > deadline_s:
                    there = fitting(self.config.parallel.worker_resources, living_nodes().values())
                    raise TrainingError(
                        f"parallel.workers: the nodes that are left have room for {there}, expected {fewest}, and no "
                        f"other came in {self.wait_s:.0f} s; the same command goes on from the last checkpoint once "
                        "there are more, with parallel.min_workers at once on fewer"
                    )
        return found or fewest

    def _fitting(self) -> int | None:
        """Return the most workers that fit beside a CPU for data; the fewest may take that too."""
        nodes = living_nodes().values()
        most, fewest = room(self.config.parallel, nodes), self.sizes[-1]
        if found := next((size for size in self.sizes if size <= most), 0):
            return found
        return fewest if fitting(self.config.parallel.worker_resources, nodes) >= fewest else None


@contextmanager
def wished(bundles: Sequence[Mapping[str, float]]) -> Iterator[None]:
    """Have an autoscaler, where there is one, make room for these inside."""
    if ray.is_initialized():
        request_resources(bundles=list(bundles))
    try:
        yield
    finally:
        if ray.is_initialized():
            request_resources(bundles=[])


def release() -> None:
    """Free what actors of this job have reserved that are no more, as Ray Train's controller once it is killed.

    Ray itself keeps it until the job ends, and so from those that come next.
    """
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id()).binary()
    for told in ray._private.state.state._connect_and_get_accessor().get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(told)
        by_actor = group.creator_actor_id not in (b"", NOBODY)  # those of a driver are said to have a dead one
        if group.creator_job_id == job and by_actor and group.creator_actor_dead and group.state != REMOVED:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))


def refuse_elastic(parallel: ParallelConfig, what: str) -> None:
    """Check that the number of workers is fixed.

    Raises:
        ConfigError: it is not.
    """
    if parallel.min_workers:
        raise ConfigError(f"parallel.min_workers: has no effect in {what}, whose workers are as many; leave it out")
