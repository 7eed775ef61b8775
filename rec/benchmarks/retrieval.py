"""The best items of a million, beside the bare matrix product and top-k."""

from __future__ import annotations

import torch
from torch import Tensor

from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import side_by_side
from rec.nn.retrieval import Ask, top_items
from rec.sections import counted

ITEMS, WIDTH, K = 1_000_000, 64, 100
USERS = (1, 16)
REPEATS = 9


def measure() -> list[Row]:
    """Return the time of exact search for a few users, each with 50 seen items."""
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    item_ID = torch.randn(ITEMS + 1, WIDTH, generator=generator)
    return [_one(item_ID, users, generator) for users in USERS]


def _one(item_ID: Tensor, users: int, generator: torch.Generator) -> Row:
    query_BD = torch.randn(users, WIDTH, generator=generator)
    seen = torch.arange(users).repeat_interleave(50), torch.randint(1, ITEMS, (50 * users,), generator=generator)
    asks = [Ask(K)] * users
    value, limit = side_by_side(
        lambda: top_items(lambda part: query_BD @ item_ID[part].T, ITEMS + 1, asks, seen),
        lambda: (query_BD @ item_ID.T).topk(K, dim=1),
        REPEATS,
    )
    name = f"top-{K} of {ITEMS:,} items x {WIDTH}, {counted(users, 'user')}, limit: bare product and top-k"
    return timed(name, value, limit, 1.5, physical=True)
