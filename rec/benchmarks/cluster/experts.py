"""Experts spread over nodes beside experts on every node, and beside the same workers on one node."""

from __future__ import annotations

from rec.benchmarks.cluster.bench import Bench
from rec.benchmarks.cluster.scaling import CPU_GOAL, rows_of
from rec.benchmarks.cluster.training import Way
from rec.benchmarks.row import Row
from rec.sections import counted

NODES = (2, 4)


def measure(bench: Bench) -> list[Row]:
    """Return the rows of both, with as many workers on one node as the limit of the CPU time."""
    rows: list[Row] = []
    for nodes in NODES:
        ways = [Way(workers=nodes, expert_parallel=nodes), Way(workers=nodes)]
        together, apart = bench.of(1, ways), bench.of(nodes, ways)
        for way, near, far in zip(ways, together, apart, strict=True):
            rows += rows_of(f"one node, {way.in_words}", near, near)
            rows += rows_of(f"{counted(nodes, 'node')}, {way.in_words}", far, near, CPU_GOAL)
    return rows
