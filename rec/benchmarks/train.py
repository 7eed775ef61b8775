"""A training step beside the bare matrix products of its unpadded shapes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import side_by_side
from rec.data.prepared import Prepared
from rec.data.stream import to_columns
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.config import MSMRecConfig
from rec.train.config import TrainConfig
from rec.train.engine import LocalEngine
from rec.train.memory import keep_freed_memory

BATCH, REPEATS = 128, 15
CONFIG = MSMRecConfig(gate="none", loss="bce", width=64, blocks=2, max_length=200, dropout=0.2)


def measure(data: Prepared) -> list[Row]:
    """Return sequences per second of the plain loop's step (BCE, one negative) and how near its limit it comes."""
    torch.set_num_threads(2)
    keep_freed_memory()
    system = MSMRec(CONFIG, data.tables(("item_count",)))
    engine = LocalEngine(system.model(), TrainConfig())
    batch = system.collate(to_columns(data.rows("train").slice(0, BATCH)))
    engine.module.train()

    def step() -> None:
        term = system.loss(engine, batch)["bce"]
        engine.backward(term.mean)
        engine.step(1e-3)

    value, limit = side_by_side(step, bare_products(batch.where.length_B.tolist()), REPEATS)
    rows = len(batch.item_N)
    name = f"step of {BATCH} sequences, {rows} rows, limit: bare matrix products"
    return [
        timed(name, value, limit, 2.0, physical=True),
        Row("sequences per second", BATCH / value.median, "1/s"),
    ]


def bare_products(lengths: list[int]) -> Callable[[], None]:
    """Return an action that makes just the matrix products of forward and backward, on the unpadded shapes."""
    width, rows = CONFIG.width, sum(lengths)
    x, weight = torch.randn(rows, width), torch.randn(width, width)
    by_length = {n: lengths.count(n) for n in set(lengths)}
    slabs = [(torch.randn(count, n, width), torch.randn(count, n, n)) for n, count in by_length.items()]

    def linear() -> Tensor:
        torch.mm(x.T, x @ weight)
        return x @ weight.T

    def action() -> None:
        for _ in range(CONFIG.blocks):
            for _ in range(6):  # query, key, value, out, up, down: forward, and two products backward
                linear()
            for q, p in slabs:  # scores and mix: forward, and two products each backward
                for _ in range(3):
                    q @ q.transpose(1, 2)
                    p @ q

    return action
