"""An artifact served by two real nodes, each with a proxy, while clients ask and a node is lost, or versions change."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rec.benchmarks.clients import Seen, asking
from rec.benchmarks.row import Row
from rec.errors import ConfigError
from rec.json_text import json_text
from rec.runtime.local_cluster import LocalCluster
from rec.runtime.serving import replica_pids

NODES, CPUS, PORT = 2, 4, 8000
REPLICAS = {"replicas": 2, "cpus_per_replica": 0.5}
CLIENTS, PER_S = 64, 100.0
BEFORE_S, AFTER_S, WINDOW_S = 20.0, 60.0, 5.0
BACK, BACK_S = 1.5, 30.0
"""What p99 may be of that before, and seconds until it is."""
Say = Callable[[str], None]


@dataclass
class Service:
    """A `rec serve` on the head of a cluster."""

    cluster: LocalCluster
    artifact: Path
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The application's name."""
        return self.artifact.name

    def url(self, node: int, path: str) -> str:
        """Return an address at a node's proxy."""
        return f"http://{self.cluster.address(node)}:{PORT}{path}"

    def health(self, node: int = 0) -> dict[str, Any]:
        """Return what a replica says of itself."""
        with urllib.request.urlopen(self.url(node, "/v1/health"), timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def replicas(self, asked: int = 20) -> set[str]:
        """Return the replicas that answer."""
        return {self.health()["replica"] for _ in range(asked)}

    def upgrade(self, artifact: Path) -> None:
        """Replace the artifact by another one, as people do.

        Raises:
            ConfigError: that failed.
        """
        words = [sys.executable, "-m", "rec.cli", "upgrade", self.name, str(artifact)]
        done = self.cluster.popen(0, words, stderr=subprocess.PIPE, text=True)
        if told := done.communicate()[1].strip() if done.wait() else "":
            raise ConfigError(f"rec upgrade: {told.splitlines()[-1]}")


@contextlib.contextmanager
def service(cluster: LocalCluster, artifact: Path, keys: Mapping[str, Any]) -> Iterator[Service]:
    """Have an artifact served by a cluster inside.

    Raises:
        ConfigError: it is not served.
    """
    words = [sys.executable, "-m", "rec.cli", "serve", str(artifact), "--port", str(PORT)]
    words += [f"serve.{key}={value}" for key, value in keys.items()]
    process = cluster.popen(0, words, stderr=subprocess.PIPE, text=True)
    found = Service(cluster, artifact, process)
    assert process.stderr is not None
    try:
        while not any("rec upgrade" in line for line in found.lines):
            if not (line := process.stderr.readline()):
                raise ConfigError(f"rec serve: {' '.join(found.lines[-3:])}")
            found.lines.append(line.strip())
        threading.Thread(target=lambda: found.lines.extend(process.stderr or ()), daemon=True).start()
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()


def replicas_by_node(cluster: LocalCluster, name: str) -> list[list[int]]:
    """Return the processes of an application's replicas on each node."""
    found = []
    for node in range(cluster.shape.nodes):
        pids = set(cluster.links.pids(cluster.links.namespace(node)))
        found.append([pid for pid in replica_pids(name) if pid in pids])
    return found


def kill(cluster: LocalCluster, node: int) -> None:
    """Kill all processes of a node."""
    for pid in cluster.links.pids(cluster.links.namespace(node)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Loss:
    """What clients saw of the loss of node 1."""

    seen: Seen
    began_s: float
    lost_s: float
    ended_s: float

    @property
    def before_s(self) -> float:
        """p99 before."""
        return self.seen.quantile_s(0.99, self.began_s, self.lost_s)

    @property
    def windows_s(self) -> list[float]:
        """p99 of each stretch of time since."""
        count = int((self.ended_s - self.lost_s) / WINDOW_S)
        firsts = [self.lost_s + WINDOW_S * number for number in range(count)]
        return [self.seen.quantile_s(0.99, first, first + WINDOW_S) for first in firsts]

    @property
    def back_s(self) -> float:
        """Seconds after which p99 was and stayed near that before."""
        late = [number for number, p99_s in enumerate(self.windows_s, 1) if not p99_s <= BACK * self.before_s]
        return WINDOW_S * max(late, default=0)

    def rows(self, how: str) -> list[Row]:
        """Return what is to be shown."""
        begun = [begun_s for begun_s, way in self.seen.unanswered if way == 1]
        living = sum(way == 0 for _, way in self.seen.unanswered)
        there = sum(begun_s < self.lost_s for begun_s in begun)
        longest_s = max(a.seconds for a in self.seen.answers if a.home == 0)
        return [
            Row(
                f"{how}: requests that no proxy answered, of {len(self.seen.answers):,}",
                self.seen.failed(),
                "",
                goal=0.0,
            ),
            Row(f"{how}: attempts that the living proxy failed", living, "", goal=0.0),
            Row(f"{how}: attempts that the lost proxy failed, in flight when it was lost", there, ""),
            Row(f"{how}: those begun later, answered by the other proxy", len(begun) - there, ""),
            Row(f"{how}: kept connections opened anew", self.seen.reopened, ""),
            Row(f"{how}: p50 before", 1e3 * self.seen.quantile_s(0.5, self.began_s, self.lost_s), "ms"),
            Row(f"{how}: p99 before", 1e3 * self.before_s, "ms"),
            Row(f"{how}: p99 at the end, limit: before", 1e3 * self.windows_s[-1], "ms", 1e3 * self.before_s, BACK),
            Row(f"{how}: longest of clients of the living proxy", 1e3 * longest_s, "ms"),
            Row(f"{how}: p99 back within {BACK:g}x after", self.back_s, "s", goal=BACK_S),
        ]


def lose(served: Service, bodies: Path, how: Callable[[LocalCluster], None], seconds: float = AFTER_S) -> Loss:
    """Return what clients of both proxies saw who asked while node 1 was lost."""
    urls = [served.url(node, "/v1/recommend") for node in range(NODES)]
    with asking(urls, bodies, CLIENTS, PER_S) as clients:
        time.sleep(WINDOW_S)
        began_s = time.monotonic()
        time.sleep(min(seconds, BEFORE_S))
        lost_s = time.monotonic()
        how(served.cluster)
        time.sleep(seconds)
        ended_s = time.monotonic()
    return Loss(clients.end(), began_s, lost_s, ended_s)
