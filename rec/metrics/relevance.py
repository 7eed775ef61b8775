"""Rankings where each user has several relevant items.

Per user, with R relevant items among those ranked and cut-off K:

    hit@K        1 where one of the best K is relevant      precision@K  relevant among the best K / K
    recall@K     relevant among the best K / R              map@K        sum_k<=K precision@k rel_k / min(K, R)
    ndcg@K       DCG@K / the DCG@K of a perfect ranking, DCG = sum_k rel_k / log2(k + 1)
    auc          share of (relevant, other) pairs in the right order, ties counted half

Relevant at ranks 1 and 3 of R = 3: precision@5 = 2/5, recall@5 = 2/3, map@5 = (1 + 2/3) / 3, and
ndcg@5 = (1 + 1/2) / (1 + 1/log2(3) + 1/2). Equal scores are put in an order drawn for each user by `JITTER_SEED`.
Letters: B users, I items with padding as item 0, P (user, item) pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CUTS = (1, 5, 10)
KINDS = ("hit", "precision", "recall", "ndcg", "map")
JITTER_SEED = 0x5DEECE66D
Pairs = tuple[Tensor, Tensor]
"""(row of the user, item), each (P,)."""


def metric_names(cuts: Sequence[int] = CUTS, auc: bool = True) -> list[str]:
    """Return the names of the metrics that `relevance` gives; `top_relevance` leaves `auc` out."""
    return [f"{kind}@{cut}" for cut in cuts for kind in KINDS] + ["auc"] * auc


def relevance(
    score_BI: Tensor, relevant: Pairs, hidden_BI: Tensor, user_B: Tensor, cuts: Sequence[int] = CUTS
) -> dict[str, Tensor]:
    """Return every metric of each user, float64 (B,); NaN for users without a relevant item that is ranked.

    Args:
        score_BI: Scores; not changed.
        relevant: Relevant pairs, each at most once.
        hidden_BI: Which items are not ranked, padding or not.
        user_B: Numbers of the users, by which equal scores are put in order.
        cuts: The values of K.
    """
    hidden_BI = hidden_BI.clone()
    hidden_BI[:, 0] = True
    relevant_BI = torch.zeros_like(hidden_BI)
    relevant_BI[relevant] = True
    relevant_BI &= ~hidden_BI
    score_BI = torch.where(score_BI.isnan(), -torch.inf, score_BI.double())
    item_BI = torch.arange(score_BI.shape[1], device=score_BI.device)[None]
    order_BI = _order(score_BI.masked_fill(hidden_BI, -torch.inf), hidden_BI, user_B, item_BI)
    sorted_BI = relevant_BI.gather(1, order_BI)
    found = _of_top(sorted_BI[:, : max(cuts)], relevant_BI.sum(1), cuts)
    found["auc"] = _auc(score_BI, relevant_BI, hidden_BI)
    return found


def top_relevance(
    score_BI: Tensor, relevant: Pairs, user_B: Tensor, cuts: Sequence[int] = CUTS
) -> tuple[dict[str, Tensor], Tensor]:
    """Return what `relevance` does but auc, and the best max(cuts) items of each user, without sorting all items.

    Args:
        score_BI: Scores, -inf for what is not ranked; none of them NaN.
        relevant: Relevant pairs, each at most once; those that are not ranked do not count.
        user_B: Numbers of the users, by which equal scores are put in order.
        cuts: The values of K.
    """
    most = min(max(cuts), score_BI.shape[1])
    value_BK, top_BK = score_BI.topk(most, dim=1)
    last_B1 = value_BK[:, -1:]
    tied_B = ((score_BI >= last_B1).sum(1) > most) | (value_BK[:, 1:] == value_BK[:, :-1]).any(1)
    if bool(tied_B.any()):
        tied_TI = score_BI[tied_B]
        near = int((tied_TI >= last_B1[tied_B]).sum(1).max())  # no other item can come among the best
        item_TC = tied_TI.topk(near, dim=1).indices.sort(1).values
        value_TC = tied_TI.gather(1, item_TC)
        order_TC = _order(value_TC, value_TC == -torch.inf, user_B[tied_B], item_TC)
        top_BK[tied_B] = item_TC.gather(1, order_TC[:, :most])
    row_P, item_P = relevant
    ranked_P = score_BI[row_P, item_P] > -torch.inf
    row_P, item_P = row_P[ranked_P], item_P[ranked_P]
    key_P = (row_P * score_BI.shape[1] + item_P).sort().values
    key_BK = torch.arange(len(top_BK), device=top_BK.device)[:, None] * score_BI.shape[1] + top_BK
    return _of_top(torch.isin(key_BK, key_P), torch.bincount(row_P, minlength=len(top_BK)), cuts), top_BK


def _of_top(hit_BK: Tensor, count_B: Tensor, cuts: Sequence[int]) -> dict[str, Tensor]:
    """Return every metric from which of the best items are relevant, and how many relevant ones are ranked."""
    count_B = torch.where(count_B > 0, count_B.double(), torch.nan)
    found: dict[str, Tensor] = {}
    most, top_BK = hit_BK.shape[1], hit_BK.double()
    place_K = torch.arange(1, most + 1, device=hit_BK.device, dtype=torch.float64)
    gain_K = 1 / torch.log2(place_K + 1)
    hits_BK = top_BK.cumsum(1)
    perfect_K = torch.cat([gain_K.new_zeros(1), gain_K.cumsum(0)])
    for cut in cuts:
        size = min(cut, most)
        hits_B = hits_BK[:, size - 1]
        best_B = torch.minimum(count_B, torch.full_like(count_B, cut))
        known = ~count_B.isnan()
        nothing_B = torch.where(known, 0.0, torch.nan)
        found[f"hit@{cut}"] = (hits_B > 0).double() + nothing_B
        found[f"precision@{cut}"] = hits_B / cut + nothing_B
        found[f"recall@{cut}"] = hits_B / count_B
        ideal_B = perfect_K[best_B.nan_to_num(0).long().clamp(max=most)]
        found[f"ndcg@{cut}"] = (top_BK * gain_K)[:, :size].sum(1) / torch.where(known, ideal_B, torch.nan)
        found[f"map@{cut}"] = (top_BK * hits_BK / place_K)[:, :size].sum(1) / best_B
    return found


def _order(score_BI: Tensor, hidden_BI: Tensor, user_B: Tensor, item_BI: Tensor) -> Tensor:
    """Return places best first, hidden items last; equal scores in an order drawn per user from the items' numbers."""
    number_BI = user_B[:, None].long() * 0x9E3779B1 + item_BI * 0x85EBCA77
    number_BI = (number_BI + JITTER_SEED) & 0x7FFFFFFF
    for factor in (0x45D9F3B, 0x27D4EB2D):
        number_BI = ((number_BI ^ (number_BI >> 15)) * factor) & 0x7FFFFFFF
    number_BI = torch.where(hidden_BI, torch.iinfo(torch.int64).max, number_BI)
    jitter_BI = number_BI.argsort(dim=1, stable=True)
    return jitter_BI.gather(1, score_BI.gather(1, jitter_BI).argsort(dim=1, descending=True, stable=True))


def _auc(score_BI: Tensor, relevant_BI: Tensor, hidden_BI: Tensor) -> Tensor:
    """Return the area under the ROC curve by mean ranks, NaN where one side is empty."""
    rows = []
    for score_I, relevant_I, hidden_I in zip(score_BI, relevant_BI, hidden_BI, strict=True):
        kept_I = ~hidden_I
        values, wanted = score_I[kept_I], relevant_I[kept_I]
        _, group, size = values.unique(return_inverse=True, return_counts=True)
        rank = (size.cumsum(0) - (size - 1) / 2.0)[group].double()
        yes = wanted.sum().double()
        no = len(values) - yes
        rows.append((rank[wanted].sum() - yes * (yes + 1) / 2) / (yes * no))
    return torch.stack(rows) if rows else score_BI.new_zeros(0)
