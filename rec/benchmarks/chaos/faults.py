"""What goes wrong on a cluster, done to a run that trains: each fault ends with the cluster whole again."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil

from rec.benchmarks.chaos.training import Training
from rec.runtime.local_cluster import SERVER

WITHIN_S = 240.0
"""Longest wait for the next step."""


@dataclass(frozen=True, slots=True)
class Survived:
    """What a fault has cost."""

    told: str
    """What was done."""
    next_step_s: float
    """From the fault to the next step; where a driver died with it, from the start of the next one."""


Fault = Callable[[Training, random.Random], Survived]


def kill_worker(run: Training, rng: random.Random) -> Survived:
    """Kill one of the processes that train."""
    node, process = _worker(run, rng)
    since_s = time.time()
    process.kill()
    return Survived(f"killed a worker on node {node}", run.next_step(since_s, WITHIN_S, restarted=True))


def pause_worker(run: Training, rng: random.Random) -> Survived:
    """Stop one of the processes that train for some seconds."""
    node, process = _worker(run, rng)
    seconds = rng.uniform(3.0, 10.0)
    process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.send_signal(signal.SIGCONT)
    took_s = run.next_step(time.time(), WITHIN_S)
    return Survived(f"stopped a worker on node {node} for {seconds:.0f} s", seconds + took_s)


def kill_node(run: Training, rng: random.Random) -> Survived:
    """Kill everything on a node other than the head, and start that again once the run goes on without it."""
    node = rng.randrange(1, run.nodes.shape.nodes)
    since_s = time.time()
    run.nodes.kill(node)
    took_s = run.next_step(since_s, WITHIN_S, restarted=True)
    run.nodes.heal(node)
    return Survived(f"killed all processes of node {node}", took_s)


def cut_link(run: Training, rng: random.Random) -> Survived:
    """Cut the link of a node for some seconds, or until the run goes on without it."""
    node, seconds = rng.randrange(1, run.nodes.shape.nodes), rng.choice([3.0, 8.0, 60.0])
    since_s = time.time()
    run.nodes.cut(node)
    if seconds > 30:
        took_s = run.next_step(since_s + 1, WITHIN_S, restarted=True) + 1
        run.nodes.heal(node)
        return Survived(f"cut the link of node {node} until the run went on without it", took_s)
    time.sleep(seconds)
    run.nodes.heal(node)
    took_s = run.next_step(time.time(), WITHIN_S)
    return Survived(f"cut the link of node {node} for {seconds:.0f} s", seconds + took_s)


def kill_driver(run: Training, rng: random.Random) -> Survived:
    """Kill the driver, and start the same command again after some seconds."""
    run.process.kill()
    run.process.wait()
    time.sleep(rng.uniform(0.0, 5.0))
    since_s = time.time()
    run.start()
    return Survived("killed the driver, same command again", run.next_step(since_s, WITHIN_S, restarted=True))


def kill_server(run: Training, rng: random.Random) -> Survived:
    """Kill the process that knows the cluster, and start it again after some seconds."""
    seconds = rng.uniform(1.0, 15.0)
    since_s = time.time()
    run.nodes.kill(0, SERVER)
    time.sleep(seconds)
    run.nodes.heal(0)
    back_s = time.time() - since_s
    took_s = run.next_step(time.time(), WITHIN_S)
    return Survived(f"killed {SERVER} for {back_s:.0f} s", took_s)


def kill_head(run: Training, rng: random.Random) -> Survived:
    """Kill everything on the head, the driver too; start it again with its state, and the same command."""
    run.nodes.kill(0)
    run.process.wait()
    time.sleep(rng.uniform(0.0, 5.0))
    run.nodes.heal(0)
    since_s = time.time()
    run.start()
    return Survived("killed the head, same command again", run.next_step(since_s, WITHIN_S, restarted=True))


def _worker(run: Training, rng: random.Random) -> tuple[int, psutil.Process]:
    """Return one of the processes that train, and its node; an attempt may have ended just now."""
    found: list[tuple[int, psutil.Process]] = []

    def look() -> bool:
        found[:] = run.workers()
        return bool(found)

    run.wait(look, WITHIN_S)
    return rng.choice(found)


FAULTS: Mapping[str, Fault] = {
    "worker": kill_worker,
    "node": kill_node,
    "driver": kill_driver,
    "server": kill_server,
    "link": cut_link,
    "pause": pause_worker,
    "head": kill_head,
}


def order(count: int, rng: random.Random) -> list[str]:
    """Return the names of faults in a random order: each kind comes once before any comes again."""
    names: list[str] = []
    while len(names) < count:
        names += rng.sample(sorted(FAULTS), len(FAULTS))
    return names[:count]
