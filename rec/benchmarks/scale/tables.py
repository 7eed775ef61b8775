"""A table of vectors whose rows lie on two ranks: memory of a rank, and a step beside that of a small table.

Ranks are processes of this machine with gloo between them. A step looks up a batch's rows, sends gradients back to
where the rows lie and updates them; what it moves and makes follows from the batch, not from the table.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed

from rec.benchmarks.ranks import as_rank
from rec.benchmarks.row import Row, load_now
from rec.benchmarks.timing import Times, seconds
from rec.benchmarks.work import Say
from rec.json_text import json_text
from rec.nn.sharded import ShardedEmbedding, update_tables
from rec.runtime.tables import TableRanks

LARGE, SMALL, WIDTH, RANKS = 10_000_000, 100_000, 64, 2
LOOKUPS = 16_384
"""Indices of a rank's batch."""
STEPS = 9
MEMORY_GOAL, STEP_GOAL = 0.6, 1.5
TIMEOUT_S = 3600.0


def measure(folder: str, say: Say) -> list[Row]:
    """Return the memory of a rank beside that of one alone, and the time of a step beside a small table's."""
    alone = _run(Path(folder), 1, say)
    shared = _run(Path(folder), RANKS, say)
    bytes_of_rank = max(rank["memory"] for rank in shared)
    large, small = (_slowest(shared, size) for size in ("large", "small"))
    name = f"table of {LARGE:,} x {WIDTH}"
    step = f"{name} on {RANKS} ranks, a step of {LOOKUPS:,} lookups a rank, limit: a table of {SMALL:,}"
    spread = min(small.rounds), max(small.rounds)
    return [
        Row(
            f"{name}, trained, memory of a rank of {RANKS}, limit: of one alone",
            bytes_of_rank,
            "bytes",
            alone[0]["memory"],
            MEMORY_GOAL,
        ),
        Row(step, large.median, "s", small.median, STEP_GOAL, limit_spread=spread, load=load_now()),
        Row(f"{name}, bytes that a step makes or moves at most at once", shared[0]["largest"], "bytes"),
    ]


def _slowest(found: list[dict[str, Any]], size: str) -> Times:
    """Return the times of the rank that took longest: the others waited for it."""
    rounds = max((rank[size] for rank in found), key=statistics.median)
    return Times(rounds=tuple(rounds))


def _run(folder: Path, world: int, say: Say) -> list[dict[str, Any]]:
    """Return what every rank tells, each a fresh process."""
    context = multiprocessing.get_context("spawn")
    processes = []
    for rank in range(world):
        given = (rank, world, str(folder / f"meeting-{world}"), str(folder / f"{world}-{rank}.json"))
        processes.append(context.Process(target=train, args=(*given, LARGE, SMALL, LOOKUPS, STEPS)))
        processes[-1].start()
    for process in processes:
        process.join(TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
    say(f"tables: {world} rank{'s' if world > 1 else ''} done")
    return [json.loads((folder / f"{world}-{rank}.json").read_text()) for rank in range(world)]


def train(rank: int, world: int, meeting: str, answer: str, large: int, small: int, lookups: int, steps: int) -> None:
    """Train a large and a small table in turns as one rank, and write down what it took."""
    with as_rank(rank, world, meeting):
        Path(answer).write_text(json_text(_trained(rank, world, large, small, lookups, steps)))


def _trained(rank: int, world: int, large: int, small: int, lookups: int, steps: int) -> dict[str, Any]:
    """Return the memory that both tables take, the seconds of their steps, and the largest tensor of one."""
    from rec.benchmarks.memory import largest_bytes

    ranks, before = TableRanks(), psutil.Process().memory_info().rss
    tables = {}
    for name, rows in (("large", large), ("small", small)):
        tables[name] = ShardedEmbedding(rows + 1, WIDTH)
        tables[name].share(ranks, torch.device("cpu"))
        assert tables[name].weight is not None
    generator = torch.Generator().manual_seed(rank)
    times: dict[str, list[float]] = {name: [] for name in tables}

    def step(table: ShardedEmbedding) -> None:
        index = torch.randint(1, table.rows, (lookups,), generator=generator)
        table(index).square().sum().backward()
        update_tables(table, rate=0.01, world_size=world, clip_norm=float("inf"), total=ranks.sum)

    for number in range(steps + 1):
        for name, table in tables.items():
            torch.distributed.barrier()
            took = seconds(lambda table=table: step(table))  # type: ignore[misc]
            times[name] += [took] if number else []
    found: dict[str, Any] = {"memory": psutil.Process().memory_info().rss - before, **times}
    found["largest"] = largest_bytes(lambda: step(tables["large"]))
    return found
