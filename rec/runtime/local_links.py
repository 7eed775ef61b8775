"""Links of a cluster on one Linux machine: a network namespace per node, all on one bridge; imports no Ray.

Everything carries the name of its cluster, so that what a killed starter has left is found by name alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass

import psutil

from rec.errors import ConfigError, one_line

TOOLS = ("ip", "tc")
NETWORK = "10.203"
"""The first half of every address; the third number is the cluster's, the last one the node's."""
NAME = re.compile(r"[a-z][a-z0-9]{0,11}")
RATE = re.compile(r"\d+(\.\d+)?[kmg]?bit")
DELAY = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s)")
PATIENCE_S = 5.0
"""Longest wait for processes that have been told to end."""


def require_possible() -> None:
    """Check that this machine and user can make network namespaces.

    Raises:
        ConfigError: not Linux, not root, or a tool is missing.
    """
    if not sys.platform.startswith("linux"):
        raise ConfigError(f"rec cluster: needs Linux, whose network namespaces hold the nodes; this is {sys.platform}")
    if os.geteuid():
        raise ConfigError("rec cluster: needs root to make network namespaces; run it as root or with sudo -E")
    for tool in TOOLS:
        if shutil.which(tool) is None:
            raise ConfigError(f"rec cluster: the command {tool!r} is missing; install iproute2")


@dataclass(frozen=True, slots=True)
class Links:
    """The names of a cluster's namespaces and devices, and what is done with them."""

    name: str
    """The cluster: a lower-case letter, then up to 11 letters and digits."""

    @property
    def short(self) -> str:
        """Six letters for devices, whose names have at most 15."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:6]

    @property
    def bridge(self) -> str:
        """The device that joins all links; it is this machine's way in."""
        return f"recb{self.short}"

    def namespace(self, node: int) -> str:
        """Return a node's namespace."""
        return f"rec-{self.name}-{node}"

    def device(self, node: int) -> str:
        """Return this machine's end of a node's link; the other one is `eth0` inside."""
        return f"recv{self.short}-{node}"

    def namespaces(self) -> list[str]:
        """Return those that are there, in the order of nodes."""
        there = (line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.strip())
        named = re.compile(rf"rec-{self.name}-(\d+)")
        found = [(int(match[1]), name) for name in there if (match := named.fullmatch(name))]
        return [name for _, name in sorted(found)]

    def devices(self) -> list[str]:
        """Return the devices of this cluster on this machine's side."""
        listed = run("ip", "-o", "link", "show").splitlines()
        there = [line.split(":")[1].strip().split("@")[0] for line in listed]
        return [device for device in there if device == self.bridge or device.startswith(f"recv{self.short}-")]

    def make(self, nodes: int, rate: str | None, delay: str | None) -> str:
        """Make the bridge and a link per node; return the first three numbers of their addresses.

        Args:
            nodes: How many; node i has the address ending in i + 2, this machine the one ending in 1.
            rate: Bits per second of each link each way, such as "1gbit"; None leaves it as fast as memory.
            delay: Time from one node to another, such as "1ms"; None adds none.

        Raises:
            ConfigError: a rate or delay that cannot be read, or that this machine's kernel cannot make.
        """
        queue = _queue(rate, delay)
        subnet = _free_subnet()
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "address", "add", f"{subnet}.1/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        for node in range(nodes):
            space, device = self.namespace(node), self.device(node)
            run("ip", "netns", "add", space)
            run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", space)
            run("ip", "link", "set", device, "master", self.bridge)
            run("ip", "-n", space, "address", "add", f"{subnet}.{node + 2}/24", "dev", "eth0")
            for end in ("lo", "eth0"):
                run("ip", "-n", space, "link", "set", end, "up")
            run("ip", "link", "set", device, "up")
            if queue:
                run("tc", "qdisc", "replace", "dev", device, "root", *queue)
                run("tc", "-n", space, "qdisc", "replace", "dev", "eth0", "root", *queue)
        return subnet

    def set(self, node: int, state: str) -> None:
        """Have a node's link "up" or "down"."""
        run("ip", "link", "set", self.device(node), state)

    def is_up(self, node: int) -> bool:
        """Return whether a node's link is up."""
        return ",UP" in run("ip", "-o", "link", "show", self.device(node))

    def pids(self, namespace: str) -> list[int]:
        """Return the processes inside a namespace, of whatever parent."""
        return [int(pid) for pid in run("ip", "netns", "pids", namespace).split()]

    def end(self, namespaces: list[str]) -> None:
        """End all processes inside: asked first, killed where that does not help."""
        for number, patience_s in ((signal.SIGTERM, PATIENCE_S), (signal.SIGKILL, PATIENCE_S)):
            left = []
            for pid in (pid for namespace in namespaces for pid in self.pids(namespace)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.append(psutil.Process(pid))
                    left[-1].send_signal(number)
            psutil.wait_procs(left, timeout=patience_s)

    def remove(self) -> bool:
        """End all processes inside, and remove whatever is left; return whether anything was there."""
        namespaces = self.namespaces()
        self.end(namespaces)
        for namespace in namespaces:
            run("ip", "netns", "delete", namespace)
        # A namespace takes its link along, a little later.
        devices = self.devices()
        for device in devices:
            subprocess.run(["ip", "link", "delete", device], capture_output=True, check=False)
        return bool(namespaces or devices)


def run(*words: str) -> str:
    """Run a tool and return its output.

    Raises:
        ConfigError: it failed.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"rec cluster: {' '.join(words)!r} failed: {one_line(done.stderr)}")
    return done.stdout


def _queue(rate: str | None, delay: str | None) -> list[str]:
    """Return what both ends of a link queue by; each of them delays by half, as a message passes two."""
    if rate is not None and not RATE.fullmatch(rate):
        raise ConfigError(f"--rate: expected a number with kbit, mbit or gbit, such as 1gbit; got {rate!r}")
    if delay is None:
        return ["tbf", "rate", rate, "burst", "512kb", "latency", "50ms"] if rate else []
    found = DELAY.fullmatch(delay)
    if found is None:
        raise ConfigError(f"--delay: expected a number with us, ms or s, such as 1ms; got {delay!r}")
    queue = ["netem", "delay", f"{float(found[1]) / 2:g}{found[2]}", "limit", "20000"]
    _require_netem(queue)
    return [*queue, "rate", rate] if rate else queue


def _require_netem(queue: list[str]) -> None:
    """Check that the kernel can delay.

    Raises:
        ConfigError: it cannot.
    """
    probe = f"recp{os.getpid()}"
    run("ip", "netns", "add", probe)
    try:
        run("tc", "-n", probe, "qdisc", "replace", "dev", "lo", "root", *queue)
    except ConfigError as error:
        raise ConfigError(
            "--delay: the kernel of this machine has no netem, which delays messages; load the module sch_netem, or "
            "leave it out"
        ) from error
    finally:
        run("ip", "netns", "delete", probe)


def _free_subnet() -> str:
    """Return the first three numbers of addresses that this machine does not use yet."""
    used = run("ip", "-o", "address", "show")
    free = (f"{NETWORK}.{number}" for number in range(256))
    for subnet in free:
        if f" {subnet}." not in used:
            return subnet
    raise ConfigError(f"rec cluster: all of {NETWORK}.0.0/16 is in use; take another cluster down")
