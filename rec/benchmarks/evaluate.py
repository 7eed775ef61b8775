"""Full ranking of every user beside the bare matrix product and top-k."""

from __future__ import annotations

import torch

from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import side_by_side
from rec.data.prepared import Prepared
from rec.data.stream import to_columns
from rec.evaluation.tasks.ranking.ranks import hide, of_ranks, ranked, ranks
from rec.nn.history import collate

WIDTH, BATCH, TOP, CUTS = 64, 256, 100, (10, 50, 100)


def measure(data: Prepared) -> list[Row]:
    """Return the time to rank every test user among all items, states given."""
    table = data.rows("test")
    batches = [collate(to_columns(table.slice(i, BATCH)), max_length=200) for i in range(0, len(table), BATCH)]
    generator = torch.Generator().manual_seed(0)
    item = torch.randn(data.num_items + 1, WIDTH, generator=generator)
    states = [torch.randn(len(b), WIDTH, generator=generator) for b in batches]

    def ours() -> None:
        for state, batch in zip(states, batches, strict=True):
            wanted = torch.arange(len(batch)), batch.target_B
            score = hide(state @ item.T, (batch.seen_user_M, batch.seen_item_M), wanted)
            rank, count = ranks(score, wanted, batch.user_B), ranked(score)
            of_ranks(rank.numpy(), wanted[0].numpy(), count.numpy(), CUTS)

    def bare() -> None:
        for state in states:
            (state @ item.T).topk(TOP, dim=1)

    value, limit = side_by_side(ours, bare, 7)
    name = f"full ranking of {len(table)} users x {data.num_items} items, limit: matmul + top-{TOP}"
    return [timed(name, value, limit, 3.0)]
