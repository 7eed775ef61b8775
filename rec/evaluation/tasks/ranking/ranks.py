"""Ranks of relevant items among all that are ranked, and the metrics that follow from them.

Per example, with R relevant items among the N that are ranked, at ranks r_1 < ... < r_R, and cut-off K:

    hit@K        1 where r_1 <= K                 precision@K  relevant among the best K / K
    recall@K     relevant among the best K / R    map@K        sum of j / r_j over r_j <= K, / min(K, R)
    mrr          1 / r_1                          mrr@K        the same, 0 where r_1 > K
    ndcg@K       sum of 1 / log2(r_j + 1) over r_j <= K, / what ranks 1, 2, ... min(K, R) give
    auc          share of (relevant, other) pairs in the right order: 1 - sum of (r_j - j) / (R (N - R))

Ranks 1 and 3 of R = 3 (the third at 9) with K = 5: precision 2/5, recall 2/3, map (1 + 2/3) / 3, and
ndcg (1 + 1/2) / (1 + 1/log2(3) + 1/2). One target is the case R = 1.

Ties: items of equal score stand in an order drawn for each subject from fixed numbers, which sees neither scores nor
labels, so a model that gives every item one score ranks at random. Item 0 is padding and never ranked; items that are
left out have a score of -inf.
Letters: B examples, I items with padding, P (example, relevant item) pairs, K items of a list.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rec import transfer

KINDS = ("hit", "recall", "precision", "ndcg", "map", "mrr")
ORDER_SEED = 0x5DEECE66D
AT_ONCE = 1 << 25
"""Numbers that one step of comparing holds."""
Pairs = tuple[Tensor, Tensor]
"""(example, item), each (P,)."""


def hide(score_BI: Tensor, left_out: Pairs, kept: Pairs, forbidden_BI: Tensor | None = None) -> Tensor:
    """Return scores in which what is not ranked has -inf; `score_BI` is overwritten.

    Args:
        score_BI: Scores; one that is not a number counts as lower than all numbers.
        left_out: Pairs that are not ranked, such as what was seen ...
        kept: ... but for these: what is to be found is ranked even where it was seen before.
        forbidden_BI: What is never ranked, to be found or not.
    """
    leave_out(score_BI, left_out, kept)
    if forbidden_BI is not None:
        score_BI.masked_fill_(forbidden_BI, -torch.inf)
    score_BI[:, 0] = -torch.inf
    return score_BI


def leave_out(score_BI: Tensor, left_out: Pairs, kept: Pairs) -> None:
    """Do what `hide` does to scores of any items, padding not among them."""
    if not bool(score_BI.sum().isfinite()):
        lowest = torch.finfo(score_BI.dtype).min
        score_BI.nan_to_num_(nan=lowest, posinf=torch.finfo(score_BI.dtype).max, neginf=lowest)
    value_P = score_BI[kept]
    score_BI[left_out] = -torch.inf
    score_BI[kept] = value_P


def ranks(score_BI: Tensor, relevant: Pairs, subject_B: Tensor) -> Tensor:
    """Return the rank, from 1, of each relevant item, int64 (P,); 0 where it is not ranked.

    Args:
        score_BI: As `hide` returns them.
        relevant: Pairs to be found, each at most once.
        subject_B: Numbers of the subjects, by which equal scores are put in order.
    """
    row_P, item_P = relevant
    own_P = score_BI[row_P, item_P]
    rank_P = torch.ones_like(item_P)
    if len(row_P) == len(score_BI) and bool((row_P == torch.arange(len(row_P), device=row_P.device)).all()):
        parts = [(slice(None), score_BI)]
    else:
        size = max(1, AT_ONCE // score_BI.shape[1])
        places = [slice(start, start + size) for start in range(0, len(row_P), size)]
        parts = [(place, score_BI[row_P[place]]) for place in places]
    for place, score_PI in parts:
        higher_P, equal_P = _higher_and_equal(score_PI, own_P[place, None])
        rank_P[place] += higher_P
        tied = (equal_P > 1) & (own_P[place] > -torch.inf)
        if bool(tied.any()):
            tied_T = tied.nonzero()[:, 0]
            before_T = _tied_before(score_PI, own_P[place], item_P[place], subject_B[row_P[place]], tied_T)
            rank_P[place] = rank_P[place].index_add(0, tied_T, before_T)
    return torch.where(own_P > -torch.inf, rank_P, 0)


def _higher_and_equal(score_PI: Tensor, own_P1: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many scores of each row are higher than its own, and how many are the same, int64 (P,) each.

    Signs of differences add up in half the time that comparisons take; where a row's own score is -inf, neither counts.
    """
    own_P1 = own_P1.clamp(min=torch.finfo(own_P1.dtype).min)
    sign_PI = (score_PI - own_P1).sign_()
    exact = torch.float64 if score_PI.shape[1] >= 1 << 24 or sign_PI.dtype == torch.float64 else torch.float32
    more_P = sign_PI.sum(1, dtype=exact)
    unequal_P = sign_PI.abs_().sum(1, dtype=exact)
    return ((unequal_P + more_P) / 2).long(), score_PI.shape[1] - unequal_P.long()


def ranked(score_BI: Tensor) -> Tensor:
    """Return how many items are ranked for each example, int64 (B,); `score_BI` is as `hide` returns it."""
    if transfer.host_knows(score_BI):  # numpy counts in two thirds of the time
        return torch.from_numpy(np.count_nonzero(score_BI.detach().numpy() > -np.inf, axis=1))
    return (score_BI > -torch.inf).sum(1)


def _tied_before(score_PI: Tensor, own_P: Tensor, item_P: Tensor, subject_P: Tensor, tied_T: Tensor) -> Tensor:
    """Return how many items of the same score come before some of the pairs, (T,)."""
    item_I = torch.arange(score_PI.shape[1], device=score_PI.device)[None]
    parts = []
    for place in tied_T.split(max(1, AT_ONCE // score_PI.shape[1] // 8)):
        number_TI = order_number(subject_P[place, None], item_I)
        mine_T1 = number_TI.gather(1, item_P[place, None])
        before_TI = (number_TI < mine_T1) | ((number_TI == mine_T1) & (item_I < item_P[place, None]))
        parts.append((before_TI & (score_PI[place] == own_P[place, None])).sum(1))
    return torch.cat(parts)


def order_number(subject: Tensor, item: Tensor) -> Tensor:
    """Return the number by which items of equal score are put in order for a subject, smallest first."""
    number = subject.long() * 0x9E3779B1 + item * 0x85EBCA77
    number = (number + ORDER_SEED) & 0x7FFFFFFF
    for factor in (0x45D9F3B, 0x27D4EB2D):
        number = ((number ^ (number >> 15)) * factor) & 0x7FFFFFFF
    return number


def best(score_BI: Tensor, subject_B: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the best items and their scores, (B, K) each, ties in the same order as ranks; 0 and -inf at the end.

    Args:
        score_BI: As `hide` returns them.
        subject_B: Numbers of the subjects.
        count: K, or the number of items where it is smaller.
    """
    most = min(count, score_BI.shape[1])
    value_BK, item_BK = score_BI.topk(most, dim=1)
    last_B1 = value_BK[:, -1:]
    finite_BK = value_BK > -torch.inf
    near_B = ((score_BI >= last_B1) & (last_B1 > -torch.inf)).sum(1)
    tied_B = (near_B > most) | ((value_BK[:, 1:] == value_BK[:, :-1]) & finite_BK[:, 1:]).any(1)
    if bool(tied_B.any()):
        tied_TI = score_BI[tied_B]
        near = max(int(near_B[tied_B].max()), most)  # no other item can come among the best
        item_TC = tied_TI.topk(near, dim=1).indices.sort(1).values
        order_TC = order_number(subject_B[tied_B, None], item_TC).argsort(dim=1, stable=True)
        item_TC = item_TC.gather(1, order_TC)
        value_TC, order_TC = tied_TI.gather(1, item_TC).sort(dim=1, descending=True, stable=True)
        item_BK[tied_B], value_BK[tied_B] = item_TC.gather(1, order_TC)[:, :most], value_TC[:, :most]
    return torch.where(value_BK > -torch.inf, item_BK, 0), value_BK


def metric_names(cuts: Sequence[int]) -> list[str]:
    """Return the names of the metrics that `of_ranks` gives."""
    return [f"{kind}@{cut}" for cut in cuts for kind in KINDS] + ["mrr", "auc"]


def of_ranks(
    rank_P: np.ndarray, example_P: np.ndarray, ranked_B: np.ndarray, cuts: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return every metric of each example, float64 (B,); NaN for examples of which nothing relevant is ranked.

    Args:
        rank_P: Ranks of relevant items, 0 where one is not ranked.
        example_P: The example of each, which never falls.
        ranked_B: N, how many items are ranked for each example.
        cuts: The values of K.
    """
    size = len(ranked_B)
    kept = rank_P > 0
    order = np.lexsort((rank_P[kept], example_P[kept]))
    rank_P, example_P = rank_P[kept][order].astype(np.float64), example_P[kept][order]
    count_B = np.bincount(example_P, minlength=size)
    place_P = np.arange(len(rank_P)) - (np.cumsum(count_B) - count_B)[example_P] + 1
    relevant_B = np.where(count_B > 0, count_B, np.nan)

    def total(value_P: np.ndarray) -> np.ndarray:
        return np.bincount(example_P, value_P, minlength=size)

    gain_P = 1 / np.log2(rank_P + 1)
    perfect_K = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, max(cuts, default=0) + 2)))])
    first_B = np.where(count_B > 0, total(np.where(place_P == 1, 1 / rank_P, 0)), np.nan)
    nothing_B = np.where(count_B > 0, 0.0, np.nan)
    found: dict[str, np.ndarray] = {}
    for cut in cuts:
        inside_P = (rank_P <= cut).astype(np.float64)
        hits_B, most_B = total(inside_P), np.minimum(relevant_B, cut)
        found[f"hit@{cut}"] = (hits_B > 0) + nothing_B
        found[f"recall@{cut}"] = hits_B / relevant_B
        found[f"precision@{cut}"] = hits_B / cut + nothing_B
        found[f"ndcg@{cut}"] = total(gain_P * inside_P) / (perfect_K[np.minimum(count_B, cut)] + nothing_B)
        found[f"map@{cut}"] = total(place_P / rank_P * inside_P) / most_B
        found[f"mrr@{cut}"] = np.where(hits_B > 0, first_B, 0.0) + nothing_B
    found["mrr"] = first_B
    wrong_B, pairs_B = total(rank_P - place_P), relevant_B * (ranked_B - count_B)
    found["auc"] = 1 - np.divide(wrong_B, pairs_B, out=np.full(size, np.nan), where=pairs_B > 0)
    return found


def coverage(top_BK: np.ndarray, num_items: int) -> float:
    """Return the share of the catalogue that stands in anybody's list; 0 is no item."""
    return len(np.unique(top_BK[top_BK > 0])) / num_items
