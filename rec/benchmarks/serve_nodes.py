"""An artifact served by two real nodes, each with a proxy, while clients ask and a node is lost, or versions change."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rec.benchmarks.clients import ClientTimes, asking
from rec.benchmarks.row import Row
from rec.errors import ConfigError
from rec.runtime.local_cluster import LocalCluster, Shape, running
from rec.runtime.serving import replica_pids

NODES, CPUS, PORT, PATH = 2, 4, 8000, "/v1/recommend"
REPLICAS = {"replicas": 2, "cpus_per_replica": 0.5}
MOST = 4
SCALED = {"max_replicas": MOST, "cpus_per_replica": 0.5, "target_ongoing_requests": 8, "downscale_delay_s": 20}
FEW, MANY = 20.0, 2000.0
"""Requests per second that are asked for: few, and more than replicas answer, so that all clients wait."""
QUESTIONS = 50
WINDOW_S = 5.0
BACK, BACK_S = 1.5, 30.0
"""What p99 may be of that before, and seconds until it is."""
Say = Callable[[str], None]


def measure(artifact: Path, second: Path, bodies: Path, say: Say) -> list[Row]:
    """Return what clients saw of a lost node, of an upgrade to a second version, and of a load that rose and fell."""
    rows, crowd = list[Row](), Crowd()
    with running(f"b{os.getpid()}", Shape(nodes=NODES, cpus=CPUS)) as cluster:
        for how, lost in (("link cut", lambda: cluster.cut(1)), ("node killed", lambda: cluster.kill(1))):
            with service(cluster, artifact, REPLICAS) as served:
                say(f"{how}: {crowd.clients} clients of two proxies, {crowd.per_s:.0f} requests per second")
                rows += lose(served, bodies, lost, crowd).rows(how)
            cluster.heal(1)
        with service(cluster, artifact, REPLICAS) as served:
            say("upgrade: over both nodes")
            rows += upgraded(served, bodies, second, crowd).rows()
        with service(cluster, artifact, SCALED) as served:
            say(f"autoscaling: from {FEW:.0f} to {MANY:.0f} requests per second asked for, and back")
            rows += scaled(served, bodies, MOST, Crowd(per_s=FEW), MANY).rows(MOST)
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Who asks, and for how long."""

    clients: int = 64
    per_s: float = 100.0
    """Requests of all of them together."""
    before_s: float = 20.0
    """Seconds before anything happens."""
    after_s: float = 60.0
    """Seconds after it."""


@dataclass
class ServeProcess:
    """A `rec serve` on the head of a cluster."""

    cluster: LocalCluster
    artifact: Path
    process: subprocess.Popen[bytes]
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

    def ask(self, body: bytes) -> bytes:
        """Return the answer to a request."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url(0, PATH), data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def upgrade(self, artifact: Path) -> None:
        """Replace the artifact by another one, as people do.

        Raises:
            ConfigError: that failed.
        """
        words = [sys.executable, "-m", "rec.cli", "upgrade", self.name, str(artifact)]
        done = self.cluster.popen(0, words, stderr=subprocess.PIPE)
        told = done.communicate()[1].decode().splitlines()
        if done.returncode:
            raise ConfigError(f"rec upgrade: {told[-1]}")


@contextlib.contextmanager
def service(cluster: LocalCluster, artifact: Path, keys: Mapping[str, Any]) -> Iterator[ServeProcess]:
    """Have an artifact served by a cluster inside.

    Raises:
        ConfigError: it is not served.
    """
    words = [sys.executable, "-m", "rec.cli", "serve", str(artifact), "--port", str(PORT)]
    words += [f"serve.{key}={value}" for key, value in keys.items()]
    process = cluster.popen(0, words, stderr=subprocess.PIPE)
    found = ServeProcess(cluster, artifact, process)
    assert process.stderr is not None
    told = io.TextIOWrapper(process.stderr)
    try:
        while not any("rec upgrade" in line for line in found.lines):
            if not (line := told.readline()):
                raise ConfigError(f"rec serve: {' '.join(found.lines[-3:])}")
            found.lines.append(line.strip())
        threading.Thread(target=lambda: found.lines.extend(told), daemon=True).start()
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


@dataclass(frozen=True, slots=True)
class Loss:
    """What clients saw of the loss of node 1."""

    seen: ClientTimes
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
        begun = [one.begun_s for one in self.seen.unanswered if one.way == 1]
        living = sum(one.way == 0 for one in self.seen.unanswered)
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


def lose(served: ServeProcess, bodies: Path, how: Callable[[], object], crowd: Crowd) -> Loss:
    """Return what clients of both proxies saw who asked while node 1 was lost."""
    urls = [served.url(node, PATH) for node in range(NODES)]
    with asking(urls, bodies, crowd.clients, crowd.per_s) as clients:
        time.sleep(WINDOW_S)
        began_s = time.monotonic()
        time.sleep(crowd.before_s)
        lost_s = time.monotonic()
        how()
        time.sleep(crowd.after_s)
        ended_s = time.monotonic()
    return Loss(clients.end(), began_s, lost_s, ended_s)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What clients saw of an upgrade."""

    seen: ClientTimes
    took_s: float
    versions: tuple[list[list[str]], list[list[str]]]
    """The items that each version gives to each question."""

    @property
    def mixed(self) -> int:
        """How many answers are of no whole version."""
        answers = [(a.question, items(a.body)) for a in self.seen.answers if a.way >= 0]
        return sum(all(told != version[asked] for version in self.versions) for asked, told in answers)

    def rows(self) -> list[Row]:
        """Return what is to be shown."""
        before, after = self.versions
        distinct = sum(a != b for a, b in zip(before, after, strict=True)) / len(before)
        return [
            Row(
                f"upgrade: requests that no proxy answered, of {len(self.seen.answers):,}",
                self.seen.failed(),
                "",
                goal=0.0,
            ),
            Row("upgrade: attempts that a proxy failed", len(self.seen.unanswered), "", goal=0.0),
            Row("upgrade: answers of no whole version", self.mixed, "", goal=0.0),
            Row("upgrade: share of questions that versions answer differently", distinct, ""),
            Row("upgrade: time until the new version answers alone", self.took_s, "s"),
        ]


def upgraded(served: ServeProcess, bodies: Path, target: Path, crowd: Crowd) -> Upgrade:
    """Return what clients of both proxies saw who asked during an upgrade."""
    few = bodies.with_name("few.jsonl")
    few.write_text("".join(bodies.read_text().splitlines(keepends=True)[:QUESTIONS]))
    urls = [served.url(node, PATH) for node in range(NODES)]
    before = [items(served.ask(body)) for body in few.read_bytes().splitlines()]
    with asking(urls, few, crowd.clients, crowd.per_s) as clients:
        time.sleep(WINDOW_S)
        start_s = time.monotonic()
        served.upgrade(target)
        took_s = time.monotonic() - start_s
        time.sleep(WINDOW_S)
    after = [items(served.ask(body)) for body in few.read_bytes().splitlines()]
    return Upgrade(clients.end(), took_s, (before, after))


def items(answer: bytes) -> list[str]:
    """Return the items of an answer, best first."""
    return [item["item"] for item in json.loads(answer)["items"]]


@dataclass(frozen=True, slots=True)
class Scaling:
    """How the number of replicas followed the load, in seconds since the load changed."""

    seen: ClientTimes
    began_s: float
    """When the load rose, by the monotonic clock."""
    most_s: float
    """Until the last of the most replicas answered."""
    fell_s: float
    """From the rise to the fall of the load."""
    fewest_s: float
    """From then until the fewest were left."""

    @property
    def late(self) -> int:
        """How many requests the service gave up at their deadline, as it says it does where replicas are too few."""
        return sum(one.cause == "504" for one in self.seen.unanswered)

    def rows(self, most: int) -> list[Row]:
        """Return what is to be shown."""
        answers, middle_s, end_s = self.seen.answers, self.began_s + self.most_s, self.began_s + self.fell_s
        return [
            Row(f"autoscaling: until replica {most} of {most} answers", self.most_s, "s"),
            Row("autoscaling: p99 before", 1e3 * self.seen.quantile_s(0.99, 0.0, self.began_s), "ms"),
            Row("autoscaling: p99 until then", 1e3 * self.seen.quantile_s(0.99, self.began_s, middle_s), "ms"),
            Row(f"autoscaling: p99 with {most}", 1e3 * self.seen.quantile_s(0.99, middle_s, end_s), "ms"),
            Row("autoscaling: until one is left after the load", self.fewest_s, "s"),
            Row(f"autoscaling: past their deadline (504), of {len(answers):,} requests", self.late, ""),
            Row("autoscaling: requests that failed otherwise", self.seen.failed() - self.late, "", goal=0.0),
        ]


def scaled(
    served: ServeProcess, bodies: Path, most: int, crowd: Crowd, per_s: float, limit_s: float = 240.0
) -> Scaling:
    """Return how replicas follow a crowd's load that for a while rises to so many requests per second.

    Raises:
        ConfigError: they do not.
    """
    urls = [served.url(node, PATH) for node in range(NODES)]
    with asking(urls[:1], bodies, crowd.clients, crowd.per_s) as clients:
        time.sleep(WINDOW_S)
        began_s, seen = time.monotonic(), set[str]()
        clients.ask_per_s(per_s)
        while len(seen) < most:
            seen.add(served.health()["replica"])
            _in_time(began_s, limit_s, f"{len(seen)} of {most} replicas answer")
            time.sleep(0.1)
        most_s = time.monotonic() - began_s
        time.sleep(2 * WINDOW_S)
        fell_s = time.monotonic() - began_s
        clients.ask_per_s(crowd.per_s)
        while (left := sum(map(len, replicas_by_node(served.cluster, served.name)))) > 1:
            _in_time(began_s + fell_s, limit_s, f"{left} replicas are left")
            time.sleep(0.5)
        fewest_s = time.monotonic() - began_s - fell_s
    return Scaling(clients.end(), began_s, most_s, fell_s, fewest_s)


def _in_time(since_s: float, limit_s: float, what: str) -> None:
    if time.monotonic() - since_s > limit_s:
        raise ConfigError(f"rec serve: {what} after {limit_s:.0f} s")
