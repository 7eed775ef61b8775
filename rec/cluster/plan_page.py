"""A plan as sections for a terminal, and as plain values for a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from itertools import groupby
from typing import Any

import numpy as np

from rec.cluster.plan import ClusterPlan, Stage
from rec.cluster.traffic import KINDS, WIRE_BYTES
from rec.nn.memory import HEAP, PROCESS
from rec.sections import Section, Table, Text, counted

MOST_ROWS = 16
"""Nodes and ranks that are told one by one; more are told in runs that are alike."""
RATES = (("1 Gbit/s", 1e9), ("10 Gbit/s", 1e10), ("100 Gbit/s", 1e11))


def page(plan: ClusterPlan) -> list[Section]:
    """Return what a plan says."""
    stages = [section for stage in plan.stages for section in _stage(plan, stage)]
    return [_places(plan), *_shares(plan), *stages, _parameters(plan), _assumptions(plan)]


def _places(plan: ClusterPlan) -> Section:
    ranks_of = plan.ranks_of
    rows: list[tuple[str, ...]] = [
        (machine.name, machine.told, spans(ranks) or "-", _sharing(plan, ranks))
        for machine, ranks in zip(plan.machines, ranks_of, strict=True)
    ]
    if len(rows) > MOST_ROWS:
        rows = _many(plan)
    parts: list[Text | Table] = [Table(head=("node", "has", "ranks", "share experts"), rows=rows)]
    if plan.across:
        told = "; ".join(f"ranks {spans(group)}" for group in plan.across[:MOST_ROWS])
        parts.append(
            Text(
                text=f"{counted(len(plan.across), 'group')} of ranks that share experts on several nodes, as no node "
                f"has room for more: {told}. Their rows cross links at every step.",
                tone="warning",
            )
        )
    return Section(title="Ranks on nodes", parts=parts)


def _many(plan: ClusterPlan) -> list[tuple[str, ...]]:
    """Return a row for all nodes that follow each other and have as many ranks."""
    found: list[tuple[str, ...]] = []
    pairs = zip(plan.machines, plan.ranks_of, strict=True)
    for (told, each), run in groupby(pairs, key=lambda pair: (pair[0].told, len(pair[1]))):
        alike = list(run)
        names, ranks = (alike[0][0].name, alike[-1][0].name), [rank for _, held in alike for rank in held]
        size = plan.parallel.expert_parallel
        sharing = "each rank has all" if size == 1 else f"groups of {size}"
        ends = names[0] if len(alike) == 1 else f"{names[0]} to {names[1]}"
        found.append((ends, told, f"{each} each: {spans(ranks)}" if each else "-", sharing if each else "-"))
    return found


def _sharing(plan: ClusterPlan, ranks: Sequence[int]) -> str:
    if plan.parallel.expert_parallel == 1:
        return "each rank has all" if ranks else "-"
    return ", ".join(spans(group) for group in plan.groups if set(group) & set(ranks)) or "-"


def _shares(plan: ClusterPlan) -> list[Section]:
    found = []
    if plan.experts:
        rows = [
            (
                one.layer or "the model",
                f"{one.experts}",
                f"{one.choices or '-'}",
                f"{one.parameters:,}",
                _held(one.ranges),
            )
            for one in plan.experts
        ]
        head = ("layer", "experts", "per row", "parameters", "experts by rank of a group")
        caption = f"Groups of {counted(plan.parallel.expert_parallel, 'rank')}; each holds all experts once."
        found.append(Section(title="Experts", parts=[Table(head=head, rows=rows, caption=caption)]))
    if plan.tables:
        held = [(one.table, f"{one.rows:,}", f"{one.width}", _held(one.ranges)) for one in plan.tables]
        columns = ("table", "rows", "numbers of a row", "rows by rank")
        found.append(Section(title="Sharded tables", parts=[Table(head=columns, rows=held)]))
    return found


def _held(ranges: Sequence[tuple[int, int]]) -> str:
    """Return which stretch each of some ranks holds, in words."""
    if len(ranges) == 1:
        return "all"
    shown = ranges if len(ranges) <= 8 else ranges[:3]
    told = [
        f"{place}: {first:,}-{end - 1:,}" if end > first else f"{place}: -" for place, (first, end) in enumerate(shown)
    ]
    return "; ".join(told) + (f"; and so on to rank {len(ranges) - 1}" if len(ranges) > len(shown) else "")


def _stage(plan: ClusterPlan, stage: Stage) -> list[Section]:
    of = f" in phase {stage.name!r}" if len(plan.stages) > 1 else ""
    return [_traffic(plan, stage, of), _memory(plan, stage, of)]


def _traffic(plan: ClusterPlan, stage: Stage, of: str) -> Section:
    title, nodes = f"Bytes per step{of}", sorted(set(plan.nodes))
    each = f"A step has {counted(stage.examples, 'example')}, {stage.examples // len(plan.nodes):,} of each rank."
    if len(plan.nodes) == 1:
        return Section(title=title, parts=[Text(text=f"One rank sends nothing. {each}")])
    rows = []
    for kind, matrix in [*stage.traffic.kinds.items(), ("all", stage.traffic.total)]:
        crossing = matrix.sum() - matrix.trace()
        rows.append((kind, size(float(crossing)), size(float(matrix.trace())), KINDS.get(kind, "")))
    parts: list[Text | Table] = [
        Text(text=each),
        Table(head=("kind", "between nodes", "inside nodes", "what it is"), rows=rows),
    ]
    if len(nodes) > 1:
        links = [_link(plan, stage, node) for node in nodes]
        busiest = max(max(stage.traffic.wire(node)) for node in nodes)
        told = ", ".join(f"{1000 * 8 * busiest / rate:,.2f} ms at {name}" for name, rate in RATES)
        parts += [
            Table(head=("link of node", "sends", "receives", "most of it", "stays inside"), rows=_alike(links)),
            Text(text=f"The busiest link takes at least {told} of a step, heads of messages included."),
        ]
    return Section(title=title, parts=parts)


def _link(plan: ClusterPlan, stage: Stage, node: int) -> tuple[str, ...]:
    found = stage.traffic
    most = max(found.kinds, key=lambda kind: found.sent(node, kind) + found.received(node, kind))
    values = [size(found.sent(node)), size(found.received(node)), most, size(found.inside(node))]
    return (plan.machines[node].name, *values)


def _memory(plan: ClusterPlan, stage: Stage, of: str) -> Section:
    memory = stage.memory
    named = {entry.name: getattr(memory, entry.name) for entry in fields(memory) if entry.name != "keeps_gradients"}
    words = {
        "weights": "parameters and buffers",
        "gradients": "gradients",
        "optimiser": "the optimiser's moments and float32 copies",
        "buffers": "buffers in which gradients are collected for other workers",
        "activations": "what a microbatch's forward keeps for its backward",
        "cache": "texts that are being written",
    }
    rows = [(words[name], size(value)) for name, value in named.items() if value]
    if plan.table_bytes:
        rows.append(("rows of sharded tables, with their sums", size(plan.table_bytes)))
    rows.append(("most at once", size(memory.total + plan.table_bytes)))
    if (resident := plan.resident(stage)) is not None:
        rows.append(("resident in the worker's process, with libraries and heap", size(resident)))
    return Section(title=f"Memory per worker{of}", parts=[Table(head=("for", "size"), rows=rows)])


def _parameters(plan: ClusterPlan) -> Section:
    counts = plan.counts
    rows = [("all", f"{counts.total:,}"), ("that an example's row passes (active)", f"{counts.active:,}")]
    rows += [("of experts", f"{counts.experts:,}")] if counts.experts else []
    rows += [("in sharded tables", f"{counts.tables:,}")] if counts.tables else []
    rows += [("never trained", f"{counts.frozen:,}")] if counts.frozen else []
    rows += [(f"trained in phase {s.name!r}", f"{s.trained:,}") for s in plan.stages if len(plan.stages) > 1]
    return Section(title="Parameters", parts=[Table(head=("parameters", "number"), rows=rows)])


def _assumptions(plan: ClusterPlan) -> Section:
    return Section(title="Assumptions", parts=[Text(text=f"- {text}") for text in assumptions(plan)])


def assumptions(plan: ClusterPlan) -> list[str]:
    """Return what a plan takes for granted."""
    parallel, found = plan.parallel, []
    if len(plan.nodes) > 1:
        found += [
            "Nodes are given to ranks with most room first, whole groups that share experts before single ranks; other "
            "jobs of the cluster take none of it.",
            "Sums and gathers go round a ring of ranks, as gloo's and NCCL's do. "
            + (
                "On GPUs whole gradients are summed, also where a rank keeps only its part (zero_stage 1 and 2)."
                if parallel.gpu
                else "Where a rank updates only its part (zero_stage 1 and 2), it alone gets the sum of its gradients."
            ),
            f"Bytes are payload; each message costs about {WIRE_BYTES} more on a link of each end, and frames of 1,500 "
            "bytes add 5 % on a real one. Data, evaluation, checkpoints and Ray's own messages are not counted.",
        ]
    if parallel.expert_parallel > 1:
        found.append(
            "Experts are used evenly. Places of a first message are an eighth more than the rows that there are; what "
            "an uneven use moves from one link to another is not told."
        )
    if plan.tables and len(plan.nodes) > 1:
        found.append("All ranks look up as many rows, and from the same ranks, as the first does in its first step.")
    scaled = max(stage.scale for stage in plan.stages)
    found.append(
        "Rows, lookups, sums and activations were counted in one step of the first rank, made here in float32"
        + (f" with one {scaled:.1f}th of its rows." if scaled > 1 else ".")
    )
    found.append(
        "Memory is that of tensors that a step needs by its shapes. A worker on CPUs has more resident: "
        f"{size(PROCESS)} for Python and libraries, and {HEAP:g} times its tensors, as the heap keeps what is freed "
        "between what is in use; a GPU's allocator keeps some too, and libraries about 0.5 GiB of it. Splits of "
        "the data set lie in shared memory beside it."
    )
    return found


def to_plain(plan: ClusterPlan) -> dict[str, Any]:
    """Return a plan as what `json` writes; all numbers of bytes are of a step."""
    stages = []
    for stage in plan.stages:
        traffic = stage.traffic
        nodes = sorted(set(plan.nodes))
        links = [
            {
                "node": plan.machines[node].name,
                "sends": traffic.sent(node),
                "receives": traffic.received(node),
                "inside": traffic.inside(node),
                "wire_sends": traffic.wire(node)[0],
                "wire_receives": traffic.wire(node)[1],
                "kinds": {
                    k: {"sends": traffic.sent(node, k), "receives": traffic.received(node, k)} for k in traffic.kinds
                },
            }
            for node in nodes
        ]
        kinds = {name: np.asarray(matrix).tolist() for name, matrix in traffic.kinds.items()}
        memory = {**asdict(stage.memory), "total": stage.memory.total, "tables": plan.table_bytes}
        memory["resident"] = plan.resident(stage)
        stages.append(
            {
                "phase": stage.name,
                "examples": stage.examples,
                "trained": stage.trained,
                "links": links,
                "bytes": kinds,
                "memory": memory,
                "work": asdict(stage.work),
            }
        )
    return {
        "nodes": [{"name": m.name, "cpus": m.cpus, "gpus": m.gpus} for m in plan.machines],
        "node_of_rank": list(plan.nodes),
        "expert_groups": plan.groups,
        "experts": [asdict(one) for one in plan.experts],
        "tables": [asdict(one) for one in plan.tables],
        "parameters": asdict(plan.counts),
        "phases": stages,
        "assumptions": assumptions(plan),
    }


def size(value: float) -> str:
    """Return a number of bytes in words."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= one:
            return f"{value / one:.1f} {unit}"
    return f"{value:.0f} B"


def spans(ranks: Iterable[int]) -> str:
    """Return ranks in words, runs of them by their ends: "0-3, 6"."""
    runs = []
    for _, run in groupby(enumerate(sorted(ranks)), key=lambda pair: pair[1] - pair[0]):
        found = [rank for _, rank in run]
        runs.append(str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}")
    return ", ".join(runs)


def _alike(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return rows of nodes; where they are many, those that follow each other and say the same as one."""
    if len(rows) <= MOST_ROWS:
        return list(rows)
    found = []
    for _, run in groupby(rows, key=lambda row: row[1:]):
        alike = list(run)
        found.append((f"{alike[0][0]} to {alike[-1][0]}", *alike[0][1:]) if len(alike) > 1 else alike[0])
    return found
