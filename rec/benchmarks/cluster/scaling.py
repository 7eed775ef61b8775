"""Weak and strong scaling over nodes, by what does not depend on how many cores this machine has."""

from __future__ import annotations

from rec.benchmarks.cluster.bench import Bench
from rec.benchmarks.cluster.training import BATCH, StepCosts, Way
from rec.benchmarks.row import Row
from rec.sections import counted

NODES = (1, 2, 4)
BYTES_GOAL, CPU_GOAL = 1.1, 1.15


def measure(bench: Bench) -> list[Row]:
    """Return the rows of data-parallel training with a worker per node, of the same work per worker and in all."""
    rows: list[Row] = []
    one: StepCosts | None = None
    for nodes in NODES:
        weak, strong = Way(workers=nodes), Way(workers=nodes, batch=BATCH // nodes)
        ways = [weak] if nodes == 1 else [weak, strong]
        for way, measured in zip(ways, bench.of(nodes, ways), strict=True):
            kind = "one node" if nodes == 1 else "weak scaling" if way is weak else "strong scaling"
            one = one or measured
            rows += rows_of(f"{kind}: {counted(nodes, 'node')}, {way.in_words}", measured, one)
    rows += [Row(f"idle, {counted(nodes, 'node')}: CPU time per second", bench.idle[nodes].cpu, "s") for nodes in NODES]
    return [
        *rows,
        *(
            Row(
                f"idle, {counted(nodes, 'node')}: bytes per second of the busiest link",
                max(bench.idle[nodes].sent),
                "B/s",
            )
            for nodes in NODES
        ),
    ]


def rows_of(name: str, found: StepCosts, one: StepCosts, cpu_goal: float | None = None) -> list[Row]:
    """Return the rows of a run, CPU time beside that of another one."""
    rows = [
        Row(f"{name}: step", found.step_s, "s"),
        Row("  samples per second", found.samples / found.seconds, "1/s"),
        Row("  samples per CPU-second", 1 / found.cpu_per_sample, "1/s"),
        Row("  share of time in collectives, waiting for others included", found.communication_share, ""),
    ]
    if found is not one:
        text = f"  CPU time per sample, limit: {counted(one.nodes, 'node')}, {one.way.in_words}"
        rows.append(Row(text, found.cpu_per_sample, "s", one.cpu_per_sample, cpu_goal))
    if found.nodes > 1:
        text = "  bytes on all links per step, limit: what must cross"
        rows.append(Row(text, found.bytes_per_step, "B", found.least_bytes, BYTES_GOAL, physical=True))
        rows.append(Row("  bytes of the busiest link per step, one way", max(found.sent) / found.steps, "B"))
    return rows
