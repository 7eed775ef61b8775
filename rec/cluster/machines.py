"""The nodes that a plan is made for, as `--nodes` names them, and which workers have room on them; imports no Ray."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rec.cluster.placing import assign
from rec.config import RunConfig
from rec.errors import ConfigError
from rec.sections import counted
from rec.systems.api import System
from rec.train.config import ParallelConfig
from rec.train.phases import stretches

ITEM = re.compile(r"(?:(\d+)x)?(\d+)(gpu)?")
SPARE_CPUS = 1
"""CPUs of a cluster beside those of workers: Ray Data's tasks run there."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A node, by what it has."""

    name: str
    cpus: float | None
    """None where only its GPUs are told."""
    gpus: float = 0.0

    def room(self, parallel: ParallelConfig) -> int:
        """Return how many workers fit."""
        needed, parts = parallel.worker_resources, []
        if self.cpus is not None:
            parts.append(int(self.cpus / needed["CPU"] + 1e-9))
        if "GPU" in needed:
            parts.append(int(self.gpus / needed["GPU"] + 1e-9))
        return min(parts, default=0)

    @property
    def told(self) -> str:
        """What it has, in words."""
        parts = [] if self.cpus is None else [counted(self.cpus, "CPU")]
        return ", ".join([*parts, *([counted(self.gpus, "GPU")] if self.gpus else [])])


def sizes(config: RunConfig, system: System[Any, Any]) -> tuple[int, ...]:
    """Return the numbers of workers that a run may have, the largest first: they divide batches and experts' ranks."""
    parallel = config.parallel
    batches = [stretch.config.batch_size for stretch in stretches(system, config.train)]
    return tuple(
        count
        for count in range(parallel.workers, parallel.fewest - 1, -1)
        if count % parallel.expert_parallel == 0 and not any(size % count for size in batches)
    )


def machines(text: str) -> list[Machine]:
    """Return the nodes that a text names: "2x4" is two of 4 CPUs, "4,2,2" three, "2x8gpu" two of 8 GPUs each.

    Raises:
        ConfigError: it names none.
    """
    found: list[Machine] = []
    for item in text.split(","):
        match = ITEM.fullmatch(item.strip().lower())
        if match is None or not int(match[1] or 1) or not int(match[2]):
            raise ConfigError(
                f"--nodes: expected nodes and the CPUs of each, as in 2x4 or 4,2,2, or their GPUs, as in 2x8gpu; "
                f"got {text!r}"
            )
        for _ in range(int(match[1] or 1)):
            name, count = str(len(found)), float(match[2])
            found.append(Machine(name, None, count) if match[3] else Machine(name, count))
    return found


def seated(
    there: Sequence[Machine], parallel: ParallelConfig, counts: Iterable[int], spare_cpus: int = SPARE_CPUS
) -> list[int]:
    """Return the node of each rank of a run, of as many as there is room for.

    `counts` are the numbers of workers that it may have, the largest first.

    Raises:
        ConfigError: there is not room for the fewest.
    """
    if parallel.gpu and not any(one.gpus for one in there):
        raise ConfigError("parallel.gpu: the nodes have no GPUs, as --nodes 2x8gpu would; or leave it out")
    if not parallel.gpu and (blind := [one for one in there if one.cpus is None]):
        raise ConfigError(f"--nodes: tells GPUs of node {blind[0].name}, but workers use none; set parallel.gpu=true")
    rooms = [one.room(parallel) for one in there]
    cpus = [one.cpus for one in there if one.cpus is not None]
    if not parallel.workers:
        return [0]
    most = sum(rooms)
    if len(cpus) == len(there):
        most = min(most, int((sum(cpus) - spare_cpus) / parallel.worker_resources["CPU"] + 1e-9))
    fewest = 0
    for fewest in counts:
        if fewest <= most:
            return assign(rooms, fewest, parallel.expert_parallel)
    key = "parallel.min_workers" if parallel.min_workers else "parallel.workers"
    needed = " and ".join(counted(amount, name) for name, amount in parallel.worker_resources.items() if amount)
    data = f" beside {counted(spare_cpus, 'CPU')} for data" if spare_cpus else ""
    held, fitting = " + ".join(one.told for one in there), counted(max(most, 0), "worker")
    raise ConfigError(
        f"{key}: the nodes ({held}) have room for {fitting} of {needed} each{data}, expected {fewest}; "
        "lower it, name more nodes, or let workers share with parallel.cpus_per_worker"
    )
