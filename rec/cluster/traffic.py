"""Bytes that a training step moves between nodes, from what a model has and which node each rank is on; imports no Ray.

    work = Work(
        expert_parallel=2, zero_stage=1, dense=1_000_000, experts=4_000_000,
        mixtures=(Mixture(rows=512, choices=2, experts=8, width=64),),
        tables=(Table(asked=900, width=32),),
        sums=(48, 8),
    )
    step = traffic(work, nodes=(0, 0, 1, 1))   # the node of each rank
    step.sent(0), step.received(0)             # bytes per step of the link of node 0
    step.inside(0)                             # between ranks of node 0
    step.kinds["rows"]                         # by kind, from node to node, (M, M); the diagonal stays inside
    least(work, nodes=(0, 0, 1, 1))            # the same for what has to cross, whatever the collectives

All numbers are of an optimiser step. Rings of ranks carry sums and gathers, as gloo's and NCCL's do: what a ring sends
from rank to rank crosses a link once where ranks of a node follow each other. Payload alone is counted; `WIRE_BYTES` is
what each message costs beside it on the link, in each direction.

Letters: P ranks, M nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Literal

import numpy as np

from rec.cluster.placing import expert_groups

FULL = 4
"""Bytes of a float32."""
COUNT, CHOSEN, WEIGHT = 8, 2, 4
"""Bytes of a count or an index, of the number of an expert and of its weight, as messages carry them."""
SPARE = 8
"""A first message has places for one in so many more rows than there were the step before (`rec.runtime.messages`)."""
WIRE_BYTES = 300
"""Bytes that a message costs beside its payload: heads, the handshake before it and what acknowledges it."""
KINDS = {
    "gradients": "gradients of parameters that all ranks hold, summed",
    "weights": "updated weights, gathered from the ranks that update them (zero_stage 1 and 2)",
    "expert gradients": "gradients of experts, summed over the ranks that hold the same ones",
    "expert weights": "updated weights of experts, gathered likewise",
    "rows": "rows to the ranks that hold their experts and back, forward and backward",
    "capacity": "assignments that all ranks compare where an expert's rows are limited",
    "tables": "rows of sharded tables, their indices and their gradients",
    "sums": "losses, counts and norms",
}
"""What moves, by kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """A call of a mixture layer in a microbatch of one rank."""

    rows: float
    """Rows of the rank."""
    choices: int
    """Experts of a row."""
    experts: int
    width: int
    """Numbers of a row as it is sent."""
    out: int = 0
    """Numbers of a row as it comes back; 0 is `width`."""
    number_bytes: int = FULL
    backward: bool = True
    """Whether gradients come back; not where the same is computed once more for a backward, or only counted."""
    capacity: bool = False
    """Whether each expert's rows are limited, so that ranks compare all assignments."""
    fullest: float = 1.0
    """Rows of the fullest expert over an even share: DeepSpeed's stock layer sends every expert as many."""

    def share(self, ranks: int) -> float:
        """Return which part of the rows has an expert on one of so many ranks, where experts are used evenly."""
        here = self.experts // ranks
        return 1 - comb(self.experts - here, self.choices) / comb(self.experts, self.choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLookup:
    """A lookup in a sharded table in a microbatch of one rank."""

    asked: float
    """Distinct rows that the rank asks for."""
    width: int
    backward: bool = True
    places: tuple[float, ...] = (1.0,)
    """Which part of them lies in each of so many equal stretches of the table."""

    def owners(self, ranks: int) -> np.ndarray:
        """Return which part of the rows each rank holds, (P,)."""
        edges = np.concatenate([[0.0], np.cumsum(self.places)])
        at = np.interp(np.linspace(0, len(self.places), ranks + 1), np.arange(len(self.places) + 1), edges)
        found: np.ndarray = np.diff(at)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTraffic:
    """What a step of a run moves, told of one rank."""

    dense: int
    """Trained parameters that every rank holds."""
    experts: int = 0
    """Trained parameters of all experts that are spread over ranks."""
    expert_parallel: int = 1
    zero_stage: int = 1
    number_bytes: int = FULL
    """Bytes of a weight and of its gradient in messages: 4, or 2 in bfloat16."""
    mixtures: tuple[Mixture, ...] = ()
    """Calls of mixture layers whose experts are spread, in one microbatch."""
    tables: tuple[TableLookup, ...] = ()
    """Lookups in sharded tables, in one microbatch."""
    sums: tuple[int, ...] = ()
    """Bytes of each small sum over all ranks in a step."""
    gradient_sums: int = 1
    """How often gradients are summed in a step: ZeRO 2 keeps no whole ones, so it does after every microbatch."""
    owners_alone: bool = False
    """Whether the sum of gradients goes to the rank alone that updates them (`rec.runtime.reducing`), not to all."""
    microbatches: int = 1
    ahead: int = 0
    """Forward passes of the microbatches before the step's own, in which terms are counted."""
    backend: Literal["grouped", "deepspeed"] = "grouped"
    """What moves rows to experts: `rec.runtime.exchange`, or DeepSpeed's stock layer."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of a step from node to node."""

    kinds: Mapping[str, np.ndarray]
    """By kind, (M, M): a row's node sends, a column's receives; the diagonal is between ranks of one node."""
    messages: np.ndarray
    """How many messages carry them, (M, M)."""

    @property
    def total(self) -> np.ndarray:
        """Return the bytes of all kinds, (M, M)."""
        found: np.ndarray = sum(self.kinds.values(), np.zeros_like(self.messages))
        return found

    @property
    def crossing(self) -> float:
        """Return the bytes that leave a node, over all nodes."""
        total = self.total
        return float(total.sum() - total.trace())

    def sent(self, node: int, kind: str | None = None) -> float:
        """Return the bytes that a node sends to others."""
        matrix = self.total if kind is None else self.kinds[kind]
        return float(matrix[node].sum() - matrix[node, node])

    def received(self, node: int, kind: str | None = None) -> float:
        """Return the bytes that a node receives from others."""
        matrix = self.total if kind is None else self.kinds[kind]
        return float(matrix[:, node].sum() - matrix[node, node])

    def inside(self, node: int, kind: str | None = None) -> float:
        """Return the bytes between ranks of a node."""
        matrix = self.total if kind is None else self.kinds[kind]
        return float(matrix[node, node])

    def wire(self, node: int) -> tuple[float, float]:
        """Return the bytes that a node's link sends and receives, with what messages cost beside their payload."""
        off = self.messages.copy()
        np.fill_diagonal(off, 0)
        beside = WIRE_BYTES * float(off[node].sum() + off[:, node].sum()) / 2
        return self.sent(node) + beside, self.received(node) + beside


@dataclass(slots=True)
class RankTraffic:
    """Collects what ranks send to each other."""

    nodes: Sequence[int]
    kinds: dict[str, np.ndarray] = field(default_factory=dict)
    messages: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Start with nothing."""
        size = max(self.nodes) + 1
        self.messages = np.zeros((size, size))
        self.kinds = {kind: np.zeros((size, size)) for kind in KINDS}

    def send(self, kind: str, first: int, second: int, size: float, messages: float = 1) -> None:
        """Note bytes from a rank to another."""
        place = self.nodes[first], self.nodes[second]
        self.kinds[kind][place] += size
        self.messages[place] += messages

    def ring(self, kind: str, ranks: Sequence[int], size: float, messages: float) -> None:
        """Note that each of some ranks sends so many bytes to the one after it."""
        if len(ranks) > 1:
            for place, rank in enumerate(ranks):
                self.send(kind, rank, ranks[(place + 1) % len(ranks)], size, messages)

    def add_up(self, kind: str, ranks: Sequence[int], size: float, times: float = 1) -> None:
        """Note sums of `size` bytes over some ranks: each passes all but its own part on, twice."""
        count = len(ranks)
        self.ring(kind, ranks, times * size * 2 * (count - 1) / count, times * 2 * (count - 1))

    def gather(self, kind: str, ranks: Sequence[int], size: float, times: float = 1) -> None:
        """Note gathers of `size` bytes of which some ranks hold a part each."""
        count = len(ranks)
        self.ring(kind, ranks, times * size * (count - 1) / count, times * (count - 1))

    @property
    def told(self) -> Traffic:
        """What was noted."""
        return Traffic({kind: matrix for kind, matrix in self.kinds.items() if matrix.any()}, self.messages)


def traffic(work: StepTraffic, nodes: Sequence[int]) -> Traffic:
    """Return the bytes of a step from node to node, where rank r is on node `nodes[r]`."""
    everyone, found = range(len(nodes)), RankTraffic(nodes)
    groups = expert_groups(nodes, work.expert_parallel)
    _parameters(found, work, groups)
    passes = work.microbatches * (1 + work.ahead)
    for mixture in work.mixtures:
        if mixture.capacity:
            found.gather("capacity", everyone, len(nodes) * mixture.rows * mixture.choices * COUNT, passes)
            found.gather("capacity", everyone, len(nodes) * mixture.rows * mixture.choices * WEIGHT, passes)
            found.add_up("capacity", everyone, len(nodes) * COUNT, 2 * passes)
        for group in groups:
            for first in group:
                for second in group:
                    if first != second:
                        _rows(found, work, mixture, first, second)
    for table in work.tables:
        _lookups(found, work, table)
    for size in work.sums:
        found.add_up("sums", everyone, size)
    return found.told


def _parameters(found: RankTraffic, work: StepTraffic, groups: Sequence[Sequence[int]]) -> None:
    """Note gradients and weights: DeepSpeed sums whole buckets, also where a rank keeps only a part of them."""
    for name, ranks, count in _alike(work, groups):
        summed = found.gather if work.zero_stage and work.owners_alone else found.add_up
        summed(f"{name}gradients", ranks, count * work.number_bytes, work.gradient_sums)
        if work.zero_stage:
            found.gather(f"{name}weights", ranks, count * work.number_bytes)


def _alike(work: StepTraffic, groups: Sequence[Sequence[int]]) -> Iterator[tuple[str, Sequence[int], int]]:
    """Yield ranks that hold the same parameters, with how many, and the name of their kind."""
    if work.dense:
        yield "", range(sum(map(len, groups))), work.dense
    if work.experts:
        for ranks in zip(*groups, strict=True):
            yield "expert ", ranks, work.experts // work.expert_parallel


def _rows(found: RankTraffic, work: StepTraffic, mixture: Mixture, first: int, second: int) -> None:
    """Note what a rank has for another that holds other experts of a layer, and what comes back."""
    ranks, forward = work.expert_parallel, work.microbatches * (1 + work.ahead)
    back_again = work.microbatches * mixture.backward
    here, out = mixture.experts // ranks, mixture.out or mixture.width
    if work.backend == "deepspeed":
        slots = mixture.fullest * mixture.rows * mixture.choices / mixture.experts * here
        both = forward + back_again
        found.send("rows", first, second, both * slots * mixture.width * mixture.number_bytes, both)
        found.send("rows", second, first, both * slots * out * mixture.number_bytes, both)
        return
    rows, kept = mixture.rows * mixture.share(ranks), min(mixture.choices, here)
    there, back = mixture.width * mixture.number_bytes, out * mixture.number_bytes
    sent = there + kept * (WEIGHT + CHOSEN)
    head = -(-(ranks + ranks * here) * COUNT // sent) * sent
    found.send("rows", first, second, forward * ((1 + 1 / SPARE) * rows * sent + head), forward)
    found.send("rows", second, first, forward * rows * back, forward)
    found.send("rows", first, second, back_again * rows * back, back_again)
    found.send("rows", second, first, back_again * rows * (there + kept * WEIGHT), back_again)


def _lookups(found: RankTraffic, work: StepTraffic, table: TableLookup) -> None:
    """Note a lookup of every rank: counts, indices, vectors, and gradients on the way back."""
    share_P, forward = table.owners(len(found.nodes)), work.microbatches * (1 + work.ahead)
    back_again = work.microbatches * table.backward
    for asking in range(len(found.nodes)):
        for owner, share in enumerate(share_P):
            if asking == owner:
                continue
            rows = table.asked * float(share)
            found.send("tables", asking, owner, forward * (COUNT + rows * COUNT), 2 * forward)
            found.send("tables", owner, asking, forward * rows * table.width * FULL, forward)
            found.send("tables", asking, owner, back_again * rows * table.width * FULL, back_again)


def least(work: StepTraffic, nodes: Sequence[int]) -> Traffic:
    """Return the bytes of a step that have to cross between nodes, whatever the collectives do.

    Nodes sum gradients inside first; ranks that update a part get the sum of that part alone; a row goes once to each
    rank that holds experts of it, with its weights and their numbers, and nothing is padded; sums are free.
    """
    names, found = sorted(set(nodes)), RankTraffic(nodes)
    first_of = {node: nodes.index(node) for node in names}
    groups = expert_groups(nodes, work.expert_parallel)
    for name, alike, count in _alike(work, groups):
        ring = [first_of[node] for node in sorted({nodes[rank] for rank in alike})]
        found.gather(f"{name}gradients", ring, count * work.number_bytes)
        found.gather(f"{name}weights" if work.zero_stage else f"{name}gradients", ring, count * work.number_bytes)
    for mixture in work.mixtures:
        ranks, kept = work.expert_parallel, min(mixture.choices, mixture.experts // work.expert_parallel)
        rows, back = mixture.rows * mixture.share(ranks), (mixture.out or mixture.width) * mixture.number_bytes
        there = mixture.width * mixture.number_bytes
        for group in groups:
            for first, second in ((a, b) for a in group for b in group if nodes[a] != nodes[b]):
                size, again = there + kept * (WEIGHT + CHOSEN), back + there + kept * WEIGHT
                found.send("rows", first, second, work.microbatches * rows * (size + back * mixture.backward))
                found.send("rows", second, first, work.microbatches * rows * (back + (again - back) * mixture.backward))
    for table in work.tables:
        for asking in range(len(nodes)):
            for owner, share in enumerate(table.owners(len(nodes))):
                if nodes[asking] != nodes[owner]:
                    rows = work.microbatches * table.asked * float(share)
                    found.send("tables", asking, owner, rows * (COUNT + table.width * FULL * table.backward))
                    found.send("tables", owner, asking, rows * table.width * FULL)
    return found.told
