"""A cluster of several real Ray nodes on one Linux machine, each in a network namespace of its own; imports no Ray."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from rec.errors import ConfigError
from rec.json_text import json_text
from rec.progress import Progress
from rec.runtime.local_links import NAME, PATIENCE_S, Links, require_possible

FOLDER, STATE = "rec-local-", "state.json"
SHOWN = "ray"
"""Ray's folder as each node sees it: one of its own, as on a machine of its own."""
HOSTS, RESOLVED = "hosts", "/etc/hosts"
"""Nodes know each other by name too: the proxies of Ray Serve ask for the address of a node's name."""
INSIDE = 'mount --bind "$1" "$2" && mount --bind "$3" "$4" && shift 4 && exec "$@"'
PORT, DASHBOARD = 6379, 8265
STORED = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_rpc_server_reconnect_timeout_s": "300"}
"""Where the head has a state: nodes wait so long for another head, by Ray's own value for 60 s."""
CURRENT = "ray_current_cluster"
"""A file that a killed head leaves: Ray takes raylets of other nodes, which it sees on this machine, for its own."""
SERVER = "gcs_server"
"""The process of the head that knows the cluster."""
START_S = 300.0
"""Longest wait for a node to be there."""
SLOW = "node timed out during startup"
"""What a node says that gave up after Ray's own 30 s, as on a busy machine: it is started again."""
POLL_S = 0.3
ANSWER_S = 5.0
TOLD = 800
"""Characters of a node's log that are told when it does not start."""
NOTICED = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}
"""A node that does not answer four times, 3 s each, is lost: after about 15 s; Ray's own values make that 65 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a cluster consists of."""

    nodes: int = 2
    cpus: int = 2
    """Logical CPUs of each node."""
    store_bytes: int = 256 << 20
    """Shared memory of each node's object store."""
    rate: str | None = None
    """Bits per second of each node's link, each way, such as "1gbit"."""
    delay: str | None = None
    """Time from one node to another, such as "1ms"."""
    state: str | None = None
    """Folder where the head keeps what it knows, so that one that is started again goes on; None keeps it in memory."""


@dataclass(frozen=True, slots=True)
class Started:
    """A node that was started."""

    process: subprocess.Popen[bytes]
    name: str
    """By which Ray knows it: one that is started again has another one."""


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A cluster that is there, by what its state file tells."""

    name: str
    subnet: str
    token: str
    shape: Shape

    @property
    def links(self) -> Links:
        """The network of the cluster."""
        return Links(self.name)

    @property
    def folder(self) -> Path:
        """Where state, logs and the nodes' own folders lie."""
        return folder_of(self.name)

    def address(self, node: int) -> str:
        """Return a node's address."""
        return f"{self.subnet}.{node + 2}"

    @property
    def dashboard(self) -> str:
        """Where jobs are submitted to, from this machine too."""
        return f"http://{self.address(0)}:{DASHBOARD}"

    @property
    def client(self) -> dict[str, str]:
        """What a client has in its environment; RAY_ADDRESS is for drivers that run on a node."""
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        return {**token, "RAY_API_SERVER_ADDRESS": self.dashboard}

    @property
    def environment(self) -> dict[str, str]:
        """The environment of processes on the nodes: this one's without what it has of Ray."""
        mine = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), mine.get("PATH", os.defpath)])
        stored = {"RAY_gcs_storage_path": self.shape.state, **STORED} if self.shape.state else {}
        return {**mine, **self.client, **NOTICED, **stored, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}

    def start(self, node: int) -> Started:
        """Start a node's Ray processes; they outlive this one."""
        name = f"{node}-{secrets.token_hex(4)}"
        with (self.folder / HOSTS).open("a") as hosts:
            hosts.write(f"{self.address(node)} {name}\n")
        words = ["ray", "start", f"--node-ip-address={self.address(node)}", f"--num-cpus={self.shape.cpus}"]
        words += [f"--object-store-memory={self.shape.store_bytes}", f"--temp-dir={self.folder / SHOWN}"]
        words += ["--disable-usage-stats", f"--node-name={name}"]
        if node == 0:
            (self.folder / "0" / CURRENT).unlink(missing_ok=True)
            words += ["--head", f"--port={PORT}", "--include-dashboard=true", f"--dashboard-port={DASHBOARD}"]
            words += [f"--dashboard-host={self.address(0)}"]
        else:
            words += [f"--address={self.address(0)}:{PORT}"]
        if node or not self.shape.state:
            # Ends all of the node with any of its processes; a head with a state outlives its server.
            words += ["--block"]
        return Started(self._detached(node, words), name)

    def _detached(self, node: int, words: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{node}.log").open("ab") as log:
            return self.popen(node, words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def popen(
        self, node: int, words: Sequence[str], environment: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a command on a node."""
        own, shown = self.folder / str(self._known(node)), self.folder / SHOWN
        for folder in (own, shown):
            folder.mkdir(exist_ok=True)
        # Each such command has mounts of its own, which nobody else sees.
        inside = ["ip", "netns", "exec", self.links.namespace(node), "sh", "-c", INSIDE, "sh", str(own), str(shown)]
        inside += [str(self.folder / HOSTS), RESOLVED]
        driver = {"RAY_ADDRESS": f"{self.address(0)}:{PORT}"} if words[:1] != ["ray"] else {}
        return subprocess.Popen([*inside, *words], env={**self.environment, **driver, **(environment or {})}, **options)

    def run(self, words: Sequence[str]) -> int:
        """Run a command on the head as a driver of the cluster, and return its exit code."""
        # Ray looks for the node of a driver among all processes of the machine, and prefers the head.
        return self.popen(0, words).wait()

    def cut(self, node: int) -> None:
        """Cut a node's link: nothing goes through, and nobody is told."""
        self.links.set(self._known(node), "down")

    def kill(self, node: int, only: str = "") -> list[int]:
        """Kill all processes of a node, as when its machine dies, or only those of one name; return what was killed."""
        killed = self.processes(node, only)
        if only == SERVER and killed:
            (self.folder / SERVER).write_text(json_text(killed[0].cmdline()))
        for process in killed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(killed, timeout=PATIENCE_S)
        return [process.pid for process in killed]

    def processes(self, node: int, name: str = "") -> list[psutil.Process]:
        """Return the processes of a node, or those of one name: "raylet", "gcs_server", the title of an actor."""
        found = []
        for pid in self.links.pids(self.links.namespace(self._known(node))):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if not name or name in Path((process.cmdline() or [""])[0]).name:
                    found.append(process)
        return found

    def heal(self, node: int) -> None:
        """Join a node's link again; one that was killed, or that the cluster has given up, starts anew.

        A head of which only the server was killed gets that again.

        Raises:
            ConfigError: it does not come back.
        """
        self.links.set(self._known(node), "up")
        server = self.folder / SERVER
        if node == 0 and self.shape.state and server.exists() and self.processes(0, "raylet"):
            self._detached(0, json.loads(server.read_text()))
            server.unlink()
            self._answering()
        elif self.states().get(node) != "ALIVE" or not self.processes(node, "raylet"):
            self.links.end([self.links.namespace(node)])
            server.unlink(missing_ok=True)
            self.wait({node: self.start(node)})

    def _answering(self) -> None:
        """Wait until the head answers.

        Raises:
            ConfigError: it does not.
        """
        deadline_s = time.monotonic() + START_S
        while not self.states():
            if time.monotonic() > deadline_s:
                raise ConfigError(f"rec cluster: the head did not answer in {START_S:.0f} s")
            time.sleep(POLL_S)

    def states(self) -> dict[int, str]:
        """Return what the head says of each node, "ALIVE" or "DEAD"; nothing where the head does not answer."""
        found: dict[int, str] = {}
        for one in self.listed():
            node = int(one["node_ip"].rsplit(".", 1)[1]) - 2
            # A node that came back stands there twice.
            found[node] = "ALIVE" if "ALIVE" in (one["state"], found.get(node)) else one["state"]
        return found

    def wait(self, started: Mapping[int, Started]) -> None:
        """Wait until nodes that were started are there.

        Raises:
            ConfigError: one has ended, or is not there in time.
        """
        deadline_s, started = time.monotonic() + START_S, dict(started)
        while True:
            alive = {one["node_name"] for one in self.listed() if one["state"] == "ALIVE"}
            left = [node for node in started if started[node].name not in alive]
            if not left:
                return
            ended = [node for node in left if started[node].process.poll() not in (None, 0)]
            if ended or time.monotonic() > deadline_s:
                node = (ended or left)[0]
                told = (self.folder / f"{node}.log").read_text(errors="replace")[-TOLD:]
                if ended and SLOW in told and time.monotonic() < deadline_s:
                    self.links.end([self.links.namespace(node)])
                    started[node] = self.start(node)
                    continue
                what = "ended while it started" if ended else f"was not there after {START_S:.0f} s"
                raise ConfigError(f"rec cluster: node {node} {what}; its log ends with: {told}")
            time.sleep(POLL_S)

    def _known(self, node: int) -> int:
        if not 0 <= node < self.shape.nodes:
            raise ConfigError(f"rec cluster: {self.name!r} has no node {node}; expected 0 to {self.shape.nodes - 1}")
        return node

    def listed(self, what: str = "nodes") -> list[dict[str, Any]]:
        """Return the head's list of "nodes", "actors", "placement_groups" or "jobs", empty where it does not answer."""
        asked = urllib.request.Request(f"{self.dashboard}/api/v0/{what}?detail=false")
        asked.add_header("Authorization", f"Bearer {self.token}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(asked, timeout=ANSWER_S) as answer:
                told = json.load(answer)
        except (OSError, ValueError):
            return []
        listed: list[dict[str, Any]] = ((told.get("data") or {}).get("result") or {}).get("result") or []
        return listed


def folder_of(name: str) -> Path:
    """Return the folder of a cluster; sockets lie below it, whose paths must be short."""
    return Path(tempfile.gettempdir()) / f"{FOLDER}{name}"


def find(name: str) -> LocalCluster:
    """Return a cluster that is there.

    Raises:
        ConfigError: there is none of this name.
    """
    path = folder_of(_checked(name)) / STATE
    try:
        told = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"rec cluster: no cluster {name!r} is there; start it with rec cluster up") from None
    return LocalCluster(told["name"], told["subnet"], told["token"], Shape(**told["shape"]))


def up(name: str, shape: Shape) -> LocalCluster:
    """Start a cluster and return it; where that fails, nothing is left.

    Raises:
        ConfigError: it cannot be started here, or one of this name is there.
    """
    require_possible()
    links, folder = Links(_checked(name)), folder_of(name)
    if folder.exists() or links.namespaces() or links.devices():
        raise ConfigError(
            f"rec cluster: {name!r} is there already, or was left; rec cluster down --name {name} ends it"
        )
    try:
        folder.mkdir(mode=0o700)
        shutil.copyfile(RESOLVED, folder / HOSTS)
        subnet = links.make(shape.nodes, shape.rate, shape.delay)
        cluster = LocalCluster(name, subnet, secrets.token_hex(32), shape)
        state = folder / STATE
        state.touch(mode=0o600)
        told = {"name": name, "subnet": subnet, "token": cluster.token, "shape": asdict(shape)}
        state.write_text(json_text(told, indent=2))
        with Progress(f"starting {shape.nodes} Ray nodes"):
            cluster.wait({0: cluster.start(0)})
            cluster.wait({node: cluster.start(node) for node in range(1, shape.nodes)})
    except BaseException:
        down(name)
        raise
    return cluster


def down(name: str) -> bool:
    """End a cluster, or whatever is left of it after a crash; return whether anything was there."""
    require_possible()
    there = Links(_checked(name)).remove()
    folder = folder_of(name)
    there |= folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    return there


@contextlib.contextmanager
def running(name: str, shape: Shape) -> Iterator[LocalCluster]:
    """Have a cluster inside; what was left of one of this name goes first."""
    down(name)
    cluster = up(name, shape)
    try:
        yield cluster
    finally:
        down(name)


def names() -> list[str]:
    """Return the clusters that have left something on this machine."""
    folders = (path.name.removeprefix(FOLDER) for path in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"))
    return sorted(name for name in folders if NAME.fullmatch(name))


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name: expected a letter, then up to 11 letters or digits, all small; got {name!r}")
    return name
