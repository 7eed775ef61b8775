"""Training runs on local clusters, each measured once whoever asks for it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rec.benchmarks.cluster.counters import Counters, total, watching
from rec.benchmarks.cluster.training import StepCosts, Way, data_set, trained
from rec.benchmarks.work import Say
from rec.data.prepared import Prepared
from rec.runtime.local_cluster import Shape, running
from rec.sections import counted

IDLE_S = 5.0
"""Seconds for which an idle cluster is watched, whose bytes and CPU time are no run's."""
RATE = "10gbit"


@dataclass(slots=True)
class Idle:
    """What a cluster without a job does, per second."""

    sent: list[float]
    """Bytes of each node."""
    cpu: float
    """CPU-seconds of all processes."""


@dataclass
class Bench:
    """Where the parts of the benchmark get their measurements from."""

    folder: str
    say: Say
    known: dict[tuple[int, str, str | None, Way], StepCosts] = field(default_factory=dict)
    idle: dict[int, Idle] = field(default_factory=dict)
    """By number of nodes."""

    @property
    def name(self) -> str:
        """The name of its clusters: one's own, so that two benchmarks do not meet."""
        return f"b{os.getpid()}"

    @cached_property
    def data(self) -> Prepared:
        """A data set that every part trains on."""
        return data_set(self.folder, self.say)

    def of(self, nodes: int, ways: Sequence[Way], rate: str = RATE, delay: str | None = None) -> list[StepCosts]:
        """Return what runs have cost; those of one call share a cluster."""
        if left := [way for way in ways if (nodes, rate, delay, way) not in self.known]:
            workers = max(way.workers for way in left)
            # Two logical CPUs for each worker, which takes one and a half: so every node holds as many as another. What
            # is left of several is enough for data, of one it need not be.
            cpus = 2 * -(-workers // nodes) + (1 if nodes == 1 else 0)
            shape = Shape(nodes=nodes, cpus=cpus, rate=rate, delay=delay)
            _ = self.data
            with running(self.name, shape) as cluster, watching(cluster) as counters:
                self.idle[nodes] = idle = idle_of(counters)
                for way in left:
                    self.say(f"{counted(nodes, 'node')}, {rate}: {way.in_words}")
                    own = Path(self.folder, f"run-{len(self.known)}")
                    measured = trained(cluster, way, self.data, own, counters, idle.sent, idle.cpu)
                    self.known[nodes, rate, delay, way] = measured
        return [self.known[nodes, rate, delay, way] for way in ways]


def idle_of(counters: Counters) -> Idle:
    """Return what a cluster does that has no job."""
    time.sleep(1.0)
    start_s = time.time()
    time.sleep(IDLE_S)
    end_s = time.time()
    time.sleep(1.0)
    seconds = end_s - start_s
    sent = [number / seconds for number in counters.bytes_between(start_s, end_s)]
    return Idle(sent, total(counters.cpu_between(start_s, end_s)) / seconds)
