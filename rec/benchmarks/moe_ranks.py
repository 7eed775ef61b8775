"""The mixture layer spread over two processes, beside the same rows without exchange and the bytes that must cross."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.multiprocessing.spawn import start_processes

from rec.benchmarks import moe
from rec.benchmarks.ranks import as_rank
from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import Times, in_turns
from rec.json_text import json_text
from rec.moe.dispatch import carry
from rec.moe.experts import FeedForwardExperts
from rec.moe.routing import keep_top_k
from rec.runtime.exchange import ExpertParallel
from rec.train.memory import keep_freed_memory

EXPERTS, ROWS, WIDTHS, CHOICES = 16, 8192, (64, 256), (1, 2, 4)
REPEATS, BYTES_GOAL = 7, 1.1


def measure(small: bool = False) -> list[Row]:
    """Return times and traffic of two processes that share the experts."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="rec-benchmark-") as folder:
        start_processes(_rank, (folder, small), nprocs=2, start_method="spawn")
        found: list[dict[str, Any]] = json.loads(Path(folder, "found.json").read_text())
    for point in found:
        name = f"2 processes, E {EXPERTS} rows {point['rows']} each, width {point['width']} k {point['k']}"
        step, local = Times(rounds=tuple(point["step_s"])), Times(rounds=tuple(point["local_s"]))
        rows.append(timed(f"{name}, limit: the same rows without exchange", step, local))
        limit = point["least"] / point["rows"]
        rows.append(
            Row(
                f"{name}, bytes per row, limit: what must cross",
                point["sent"] / point["rows"],
                "B",
                limit,
                BYTES_GOAL,
                physical=True,
            )
        )
    return rows


def _rank(rank: int, folder: str, small: bool) -> None:
    keep_freed_memory()
    with as_rank(rank, 2, f"{folder}/meeting"):
        points = [_point(rank, ROWS // 8 if small else ROWS, width, k) for width in WIDTHS for k in CHOICES]
        if rank == 0:
            Path(folder, "found.json").write_text(json_text(points))


def _point(rank: int, rows: int, width: int, k: int) -> dict[str, Any]:
    torch.manual_seed(rank)
    experts = FeedForwardExperts(width, moe.HIDDEN * width, EXPERTS)
    half = FeedForwardExperts(width, moe.HIDDEN * width, EXPERTS)
    half.keep(rank * EXPERTS // 2, EXPERTS // 2)
    x_ND, grad_ND = torch.randn(rows, width), torch.randn(rows, width)
    routing = keep_top_k(torch.randn(rows, EXPERTS).softmax(-1), k)
    spread = moe.step(x_ND, grad_ND, routing, half, ExpertParallel(torch.distributed.group.WORLD))
    sent: list[int] = []
    counted = moe.step(x_ND, grad_ND, routing, half, ExpertParallel(torch.distributed.group.WORLD, sent.append))
    local = moe.step(x_ND, grad_ND, routing, experts, carry)

    def together() -> None:
        torch.distributed.barrier()
        spread()

    step, alone = in_turns([together, local], REPEATS)
    counted()
    elsewhere = (routing.expert_NK.div(EXPERTS // 2, rounding_mode="floor") != rank).any(1).sum()
    # There and back, and their gradients back and there.
    least = 4 * int(elsewhere) * width * x_ND.element_size()
    return {
        "rows": rows,
        "width": width,
        "k": k,
        "step_s": step.rounds,
        "local_s": alone.rounds,
        "sent": sum(sent),
        "least": least,
    }
