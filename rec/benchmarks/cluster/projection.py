"""Step time and efficiency on GPUs that nobody here has, by a model whose every assumption is a row of its own.

T(P) = compute + latency + bytes of NVLink / its rate + bytes of the network / its rate, nothing overlapped. Bytes are
those of `rec.cluster.traffic` for the nodes that P GPUs fill, spread evenly over the GPUs of a node and their links.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rec.benchmarks.row import Row
from rec.cluster.traffic import Mixture, StepTraffic, Traffic, traffic

GPUS = (8, 64, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What is assumed of the machines: eight H100 per node, by their data sheets."""

    gpus_per_node: int = 8
    flops: float = 989e12
    """Of a GPU in bfloat16, dense."""
    utilisation: float = 0.3
    """Share of them that a step reaches."""
    nvlink: float = 450e9
    """Bytes per second of a GPU to others of its node, each way."""
    network: float = 50e9
    """Bytes per second of a GPU to other nodes, each way: a 400 Gbit/s InfiniBand port per GPU."""
    reached: float = 0.8
    """Share of both that collectives reach."""
    latency_near: float = 10e-6
    """Seconds of a collective inside a node."""
    latency_hop: float = 5e-6
    """Seconds more for each doubling of nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is assumed of the model: a sequence recommender of 1.8 billion parameters, most of them experts'."""

    width: int = 1024
    layers: int = 12
    experts: int = 64
    choices: int = 2
    expert_hidden: int = 1024
    items: int = 100_000
    """Rows of the table that every GPU holds; larger ones are sharded and not in this."""
    examples: int = 256
    """Of a GPU and step: weak scaling."""
    length: int = 50
    """Items of a history."""
    number_bytes: int = 2

    @property
    def dense(self) -> int:
        """Parameters that every GPU holds: the table, attention, routers."""
        return self.width * (self.items + self.layers * (4 * self.width + self.experts))

    @property
    def spread(self) -> int:
        """Parameters of all experts."""
        return self.layers * self.experts * 2 * self.width * self.expert_hidden

    @property
    def rows(self) -> int:
        """Rows of a GPU and step."""
        return self.examples * self.length

    @property
    def flops(self) -> float:
        """Operations of a GPU and step: 6 per parameter that a row passes, and attention over its history."""
        passed = self.layers * (4 * self.width**2 + self.choices * 2 * self.width * self.expert_hidden)
        attention = self.layers * 2 * self.width * self.length
        return 6.0 * self.rows * (passed + attention)


@dataclass(frozen=True, slots=True)
class Step:
    """The parts of a step, in seconds."""

    compute: float
    latency: float
    nvlink: float
    network: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.compute + self.latency + self.nvlink + self.network


def projected(machines: Machines | None = None, load: Load | None = None) -> list[Row]:
    """Return the rows of assumptions, then step time and efficiency by number of GPUs and way to train."""
    machines, load = machines or Machines(), load or Load()
    rows = assumptions(machines, load)
    alone = step(1, 1, machines, load)
    rows.append(Row("predicted, 1 GPU: step", alone.seconds, "s"))
    for gpus in GPUS:
        for size in (1, *sorted({machines.gpus_per_node, min(gpus, load.experts)})):
            found = step(gpus, size, machines, load)
            kind = "data-parallel" if size == 1 else f"expert-parallel {size}"
            rows.append(Row(f"predicted, {gpus} GPUs, {kind}: step", found.seconds, "s"))
            rows.append(
                Row("  efficiency, as examples per GPU-second over those of 1 GPU", alone.seconds / found.seconds, "")
            )
            rows += [Row(f"  of which {part}", getattr(found, part), "s") for part in ("latency", "nvlink", "network")]
            state = 16 * (load.dense / gpus + load.spread / size / (gpus / size)) + 4 * (
                load.dense + load.spread / size
            )
            rows.append(Row("  weights, gradients and optimiser of a GPU (zero_stage 1)", state / 1e9, "GB"))
    return rows


def step(gpus: int, size: int, machines: Machines, load: Load) -> Step:
    """Return the parts of a step of some GPUs of which `size` share a copy of the experts."""
    compute = load.flops / (machines.flops * machines.utilisation)
    if gpus == 1:
        return Step(compute, 0.0, 0.0, 0.0)
    each, nodes = min(gpus, machines.gpus_per_node), -(-gpus // machines.gpus_per_node)
    moved = moved_by(gpus, size, each, load)
    hops = math.log2(nodes)
    # Gradients, weights and three small sums over all; four exchanges of rows a layer among those that share experts.
    wide, rows = 5 if size == 1 else 7, 4 * load.layers if size > 1 else 0
    crossing = math.log2(max(1, size // each))
    latency = wide * (machines.latency_near + hops * machines.latency_hop)
    latency += rows * (machines.latency_near + crossing * machines.latency_hop)
    near = moved.inside(0) / each / (machines.nvlink * machines.reached)
    far = max(moved.sent(0), moved.received(0)) / each / (machines.network * machines.reached)
    return Step(compute, latency, near, far)


def moved_by(gpus: int, size: int, each: int, load: Load) -> Traffic:
    """Return the bytes of a step between nodes of `each` GPUs, which NCCL sums whole."""
    mixture = Mixture(
        rows=load.rows, choices=load.choices, experts=load.experts, width=load.width, number_bytes=load.number_bytes
    )
    work = StepTraffic(
        dense=load.dense,
        experts=load.spread,
        expert_parallel=size,
        number_bytes=load.number_bytes,
        mixtures=(mixture,) * load.layers if size > 1 else (),
    )
    return traffic(work, [gpu // each for gpu in range(gpus)])


def assumptions(machines: Machines, load: Load) -> list[Row]:
    """Return what is assumed, a row each."""
    told = {
        "GPUs per node": (machines.gpus_per_node, ""),
        "FLOP/s of a GPU, bfloat16": (machines.flops, "1/s"),
        "share of them that a step reaches": (machines.utilisation, ""),
        "NVLink of a GPU, each way": (machines.nvlink, "B/s"),
        "InfiniBand of a GPU, each way": (machines.network, "B/s"),
        "share of both that collectives reach": (machines.reached, ""),
        "a collective inside a node": (machines.latency_near, "s"),
        "more for each doubling of nodes": (machines.latency_hop, "s"),
        "share of communication hidden behind computing": (0, ""),
        "parameters that every GPU holds": (load.dense, ""),
        "parameters of all experts": (load.spread, ""),
        "experts, 2 per row": (load.experts, ""),
        "examples per GPU and step, 50 items each": (load.examples, ""),
        "operations per GPU and step": (load.flops, ""),
        "bytes of a number in messages": (load.number_bytes, "B"),
    }
    return [Row(f"assumed: {name}", float(value), unit) for name, (value, unit) in told.items()]
