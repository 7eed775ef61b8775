"""What a local cluster's links and processes have done so far, sampled beside whatever runs there."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rec.runtime.local_cluster import LocalCluster

EVERY_S, PROCESSES_EVERY = 0.1, 5
"""Seconds between samples of the links, and how many of them go to one of the processes, which costs more."""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
WORKER, RAY = "training workers", "Ray"
KINDS = (WORKER, RAY, "driver")
RAYS = (b"raylet", b"gcs_server", b"ray::", b"ray/dashboard", b"ray/_private", b"/bin/ray")
"""What stands in the command line of a process of Ray's own."""


@dataclass(frozen=True, slots=True)
class CounterSample:
    """Counters at one time; seconds since the epoch, as workers tell them."""

    at_s: float
    sent: tuple[int, ...]
    """Bytes that each node has put on its link."""


@dataclass(slots=True)
class Counters:
    """Samples of a cluster's counters, taken by a thread of this process while inside `watching`."""

    cluster: LocalCluster
    samples: list[CounterSample] = field(default_factory=list)
    cpu: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    """Time, and CPU-seconds of each kind of process, those that have ended among them."""
    last: dict[int, tuple[str, float]] = field(default_factory=dict)

    def bytes_between(self, start_s: float, end_s: float) -> list[float]:
        """Return the bytes that each node sent between two times."""
        first, second = (self._sent_at(at_s) for at_s in (start_s, end_s))
        return [b - a for a, b in zip(first, second, strict=True)]

    def cpu_between(self, start_s: float, end_s: float) -> dict[str, float]:
        """Return the CPU-seconds that each kind of process took between two times."""
        first, second = (self._cpu_at(at_s) for at_s in (start_s, end_s))
        return {kind: second[kind] - first[kind] for kind in KINDS}

    def sample(self) -> None:
        """Take a sample of the links."""
        cluster = self.cluster
        sent = tuple(sent_by(cluster, node) for node in range(cluster.shape.nodes))
        self.samples.append(CounterSample(time.time(), sent))

    def sample_processes(self) -> None:
        """Take a sample of the processes."""
        for node in range(self.cluster.shape.nodes):
            for pid in self.cluster.links.pids(self.cluster.links.namespace(node)):
                with contextlib.suppress(OSError):
                    self.last[pid] = kind_of(pid), cpu_s_of(pid)
        found = dict.fromkeys(KINDS, 0.0)
        for kind, seconds in self.last.values():
            found[kind] += seconds
        self.cpu.append((time.time(), found))

    def _sent_at(self, at_s: float) -> list[float]:
        times = [sample.at_s for sample in self.samples]
        after, share = _place(times, at_s)
        pairs = zip(self.samples[after - 1].sent, self.samples[after].sent, strict=True)
        return [a + share * (b - a) for a, b in pairs]

    def _cpu_at(self, at_s: float) -> dict[str, float]:
        after, share = _place([at for at, _ in self.cpu], at_s)
        first, second = self.cpu[after - 1][1], self.cpu[after][1]
        return {kind: first[kind] + share * (second[kind] - first[kind]) for kind in KINDS}


@contextlib.contextmanager
def watching(cluster: LocalCluster) -> Iterator[Counters]:
    """Sample a cluster's counters inside."""
    counters, ended = Counters(cluster), threading.Event()

    def sample() -> None:
        number = 0
        while not ended.wait(EVERY_S if number else 0):
            counters.sample()
            if number % PROCESSES_EVERY == 0:
                counters.sample_processes()
            number += 1

    thread = threading.Thread(target=sample, daemon=True, name="counters")
    thread.start()
    try:
        yield counters
    finally:
        ended.set()
        thread.join()
        counters.sample()
        counters.sample_processes()


def sent_by(cluster: LocalCluster, node: int) -> int:
    """Return the bytes that a node has put on its link since it was made."""
    device = Path("/sys/class/net", cluster.links.device(node), "statistics")
    return int((device / "rx_bytes").read_text())  # what this end receives


def kind_of(pid: int) -> str:
    """Return which kind of process this is.

    Raises:
        OSError: it has ended.
    """
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    if b"RayTrainWorker" in words:
        return WORKER
    return RAY if any(part in words for part in RAYS) else "driver"


def cpu_s_of(pid: int) -> float:
    """Return the CPU-seconds of a process and all its threads.

    Raises:
        OSError: it has ended.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def _place(times: list[float], at_s: float) -> tuple[int, float]:
    """Return the sample after a time, and where the time stands between that and the one before."""
    after = min(max(bisect_left(times, at_s), 1), len(times) - 1)
    before_s, after_s = times[after - 1], times[after]
    return after, min(max((at_s - before_s) / (after_s - before_s), 0.0), 1.0)


def total(found: Mapping[str, float]) -> float:
    """Return the CPU-seconds of all kinds."""
    return sum(found.values())
