"""Full ranking of a large catalogue for many users, beside the bare product and top-k.

All users against all items would take hours on a CPU: a batch of them is ranked against the whole catalogue, block by
block as evaluation does it, and told for the number of users that is aimed at.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rec.benchmarks.memory import largest_bytes
from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import cpu_s, in_turns
from rec.benchmarks.work import Say
from rec.evaluation.tasks.ranking.blocks import SCORES_PER_BLOCK, rank_in_blocks
from rec.evaluation.tasks.ranking.task import TOP
from rec.systems.capabilities import RankingExamples

ITEMS, WIDTH, USERS = 10_000_000, 64, 10_000
SAMPLE, SEEN = 256, 50
"""Users who are measured, a batch of evaluation; and what each has seen."""
REPEATS, GOAL = 3, 1.5
BLOCK = 1 << 14
"""Items of a block of the bare product, whose scores stay in the cache."""


def measure(folder: str, say: Say) -> list[Row]:
    """Return the time of ranks and best items, and the largest tensor that is made."""
    generator = torch.Generator().manual_seed(0)
    item_ID = torch.randn(ITEMS + 1, WIDTH, generator=generator)
    query_BD = torch.randn(SAMPLE, WIDTH, generator=generator)
    user_B = torch.arange(SAMPLE)
    seen = user_B.repeat_interleave(SEEN), torch.randint(1, ITEMS, (SAMPLE * SEEN,), generator=generator)
    target = user_B, torch.randint(1, ITEMS, (SAMPLE,), generator=generator)
    examples = RankingExamples(subject_B=user_B, target=target, left_out=seen, known=seen)

    def score(row_R: Tensor | None, items: slice) -> Tensor:
        return (query_BD if row_R is None else query_BD[row_R]) @ item_ID[items].T

    def ours() -> None:
        rank_in_blocks(score, examples, ITEMS + 1, TOP)

    value, limit = in_turns([ours, lambda: bare(query_BD, item_ID)], REPEATS, clock=cpu_s)
    share = USERS / SAMPLE
    name = f"full ranking of {ITEMS:,} items x {WIDTH} for {USERS:,} users ({SAMPLE:,} measured)"
    value_row = timed(f"{name}, limit: bare product and top-{TOP}", value.scaled(share), limit.scaled(share), GOAL)
    # Beside it a flag per item is all that grows.
    most = max(4 * SCORES_PER_BLOCK, ITEMS + 1)
    return [
        value_row,
        Row(f"{name}, largest tensor, limit: a block's scores", largest_bytes(ours), "bytes", most, 1),
    ]


def bare(query_BD: Tensor, item_ID: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best items by nothing but products, top-k of each block, and top-k of all of them."""
    values, places = [], []
    for start in range(0, len(item_ID), BLOCK):
        best = (query_BD @ item_ID[start : start + BLOCK].T).topk(min(TOP, len(item_ID) - start), dim=1)
        values.append(best.values)
        places.append(best.indices + start)
    joined = torch.cat(values, 1).topk(TOP, dim=1)
    return torch.cat(places, 1).gather(1, joined.indices), joined.values
