"""Ranks of one target among all items, and the metrics that follow from them.

Ties: a target's rank is 1 + the items that score higher + half of the other items that score the same, so a model
that gives every item one score gets the middle rank, not the first. Item 0 is padding and never ranked.
Letters: B users, I + 1 items with padding, M seen items of all users.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

CUTS = (10, 50, 100)


def full_ranks(score_BI: Tensor, target_B: Tensor, seen_user_M: Tensor, seen_item_M: Tensor) -> Tensor:
    """Return each target's rank from 1 among the items its user has not seen, float64 (B,).

    Seen items are left out in place; the target stays even where it was seen before. `score_BI` is overwritten.
    """
    target_score_B1 = score_BI.gather(1, target_B[:, None])
    score_BI[seen_user_M, seen_item_M] = -torch.inf
    score_BI[:, 0] = -torch.inf
    score_BI.scatter_(1, target_B[:, None], target_score_B1)
    higher = (score_BI > target_score_B1).sum(1, dtype=torch.int32)
    equal = (score_BI == target_score_B1).sum(1, dtype=torch.int32) - 1
    # A target whose score is not a number is beaten by everything that is left.
    last = (score_BI != -torch.inf).sum(1, dtype=torch.int32)
    rank = 1 + higher.double() + equal.double() / 2
    return torch.where(target_score_B1[:, 0].isfinite(), rank, last.double())


def metric_names(cuts: Sequence[int] = CUTS) -> list[str]:
    """Return the names of the metrics that `of_ranks` gives."""
    kinds = ("hit", "recall", "precision", "ndcg", "map", "mrr")
    return [f"{kind}@{cut}" for cut in cuts for kind in kinds] + ["mrr"]


def of_ranks(rank_B: Tensor, cuts: Sequence[int] = CUTS) -> dict[str, Tensor]:
    """Return every metric of each user for one target per user, (B,) each.

    With rank r: hit@k = recall@k = [r <= k], precision@k = [r <= k] / k, ndcg@k = [r <= k] / log2(r + 1),
    map@k = mrr@k = [r <= k] / r, mrr = 1 / r. Ranks 1, 3, 11 give hit@10 = (1 + 1 + 0) / 3 and
    ndcg@10 = (1 + 1/2 + 0) / 3.
    """
    rank_B = rank_B.double()
    found: dict[str, Tensor] = {}
    for cut in cuts:
        inside = (rank_B <= cut).double()
        found[f"hit@{cut}"] = found[f"recall@{cut}"] = inside
        found[f"precision@{cut}"] = inside / cut
        found[f"ndcg@{cut}"] = inside / torch.log2(rank_B + 1)
        found[f"map@{cut}"] = found[f"mrr@{cut}"] = inside / rank_B
    found["mrr"] = 1 / rank_B
    return found


def means(rank: np.ndarray, cuts: Sequence[int] = CUTS) -> dict[str, float]:
    """Return the mean of every metric over users."""
    return {name: float(value.mean()) for name, value in of_ranks(torch.from_numpy(rank), cuts).items()}


def coverage(top_BK: np.ndarray, num_items: int) -> float:
    """Return the share of the catalogue that stands in anybody's list."""
    return len(np.unique(top_BK)) / num_items
