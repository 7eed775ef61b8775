"""Shapley values: what each of M parts adds to a score, exactly, over all subsets of the others.

Letters: K scores, S = 2^M subsets, M parts. Source: Shapley 1953.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def subsets(count: int) -> Tensor:
    """Return all subsets of so many parts as rows of booleans, the empty one first, (S, M)."""
    return torch.tensor(list(itertools.product([False, True], repeat=count)), dtype=torch.bool).view(-1, count)


def shapley(score_KS: Tensor) -> Tensor:
    """Return the score of the empty subset and the value of each part, which add up to that of all, (K, 1 + M).

    `score_KS` are the scores of all subsets in the order of `subsets`.
    """
    count = score_KS.shape[1].bit_length() - 1
    subset_SM = subsets(count)
    size_S = subset_SM.sum(1)
    weight = [math.factorial(s) * math.factorial(count - s - 1) / math.factorial(count) for s in range(count)]
    parts = [score_KS[:, 0]]
    for m in range(count):
        with_m = subset_SM[:, m].nonzero()[:, 0]
        without_m = with_m - (1 << (count - 1 - m))
        weight_S = score_KS.new_tensor([weight[s] for s in size_S[without_m].tolist()])
        parts.append(((score_KS[:, with_m] - score_KS[:, without_m]) * weight_S).sum(1))
    return torch.stack(parts, 1)
