"""Ranks and best items of a catalogue of any size from one pass over it, a block of items at a time.

What is found is what `rec.evaluation.tasks.ranking.ranks` finds in the whole matrix of scores. A relevant item's own
score is known only once its block has come, so it is scored alone before: items that are clearly above its score are
counted, the few that come near it are kept until it is known. Where they are not few, or many share the last place of a
list, the example is left to the whole matrix.

Letters: B examples, I items with padding as item 0, W items of a block, P (example, relevant item) pairs, M pairs that
are left out, T best items so far, C items near a relevant one's score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rec import transfer
from rec.evaluation.tasks.ranking.ranks import Pairs, leave_out, order_number
from rec.systems.capabilities import RankingExamples

Score = Callable[[Tensor | None, slice], Tensor]
"""Scores of a range of items, for some examples or for all, to be written to."""
SCORES_PER_BLOCK, FEWEST = 1 << 22, 1024
"""Scores of a block, 16 MiB: they stay in a cache; and the fewest items that a block has."""
SPARE = 6
"""Items that a list holds beyond those that are asked for, so that ties at its end are seen."""
PER_COLUMN = 64
"""Items of a column, in which only the best are looked for where its highest score is among the best."""
NEARBY, MOST_NEARBY = 3e-6, 4096
"""How far scores of one pair lie apart that two products give, in parts of the highest; most items as near as that."""


@dataclass(frozen=True, slots=True)
class BlockRanks:
    """What one pass finds."""

    rank_P: Tensor
    """0 where an item is not ranked."""
    ranked_B: Tensor
    top_BK: Tensor
    top_score_BK: Tensor
    cold_rank_P: Tensor
    """Ranks of cold items among cold ones alone, 0 of others."""
    cold_ranked_B: Tensor
    left_B: Tensor
    """Examples that only the whole matrix of scores can rank, bool."""


def rank_in_blocks(
    score: Score, examples: RankingExamples, num_items: int, most: int, cold_I: Tensor | None = None
) -> BlockRanks:
    """Return ranks and the best `most` items of each example.

    Args:
        score: As `Ranker.scores` gives them.
        examples: What is ranked; nothing in it is forbidden.
        num_items: I, padding included.
        most: K.
        cold_I: Which items are cold, bool; None where nobody asks.
    """
    row_P, item_P = examples.target
    users = len(examples.subject_B)
    device = row_P.device
    width = min(num_items, max(FEWEST, SCORES_PER_BLOCK // max(users, len(row_P), 1)))
    nobody_I = torch.zeros(num_items, dtype=torch.bool, device=device) if cold_I is None else cold_I.to(device)
    hidden, kept = _Inside(*examples.left_out), _Inside(row_P, item_P)
    near_P = _alone(score, row_P, item_P)
    above = _Above(near_P, examples, torch.arange(len(row_P), device=device))
    above_cold = _Above(near_P, examples, nobody_I[item_P].nonzero()[:, 0])
    best = _Best(users, min(most, num_items - 1), device)
    for start in range(0, num_items, width):
        end = min(start + width, num_items)
        score_BW = score(None, slice(start, end))
        out, back = hidden.between(start, end), kept.between(start, end)
        leave_out(score_BW, (out[0], out[1] - start), (back[0], back[1] - start))
        if not start:
            score_BW[:, 0] = -torch.inf
        above.add(score_BW, start)
        cold_C = nobody_I[start:end].nonzero()[:, 0]
        if len(cold_C) and len(above_cold.pair_T):
            above_cold.add(score_BW, start, cold_C)
        best.add(score_BW, start)
    top_BK, top_score_BK, crowded_B = best.lists(examples.subject_B)
    left_B = crowded_B.index_fill(0, row_P[above.left_P | above_cold.left_P], True)
    return BlockRanks(
        rank_P=above.ranks(),
        ranked_B=_count_ranked(examples, num_items, torch.ones_like(nobody_I)),
        top_BK=top_BK,
        top_score_BK=top_score_BK,
        cold_rank_P=above_cold.ranks(),
        cold_ranked_B=_count_ranked(examples, num_items, nobody_I),
        left_B=left_B,
    )


def _alone(score: Score, row_P: Tensor, item_P: Tensor) -> Tensor:
    """Return each pair's score, as products of a few rows give it, (P,)."""
    found_P = torch.zeros(len(row_P), device=row_P.device)
    order_P = item_P.argsort()
    items, counts = item_P[order_P].unique_consecutive(return_counts=True)
    for item, place in zip(items.tolist(), order_P.split(counts.tolist()), strict=True):
        found_P[place] = score(row_P[place], slice(item, item + 1))[:, 0].float()
    return found_P.nan_to_num_(nan=torch.finfo(torch.float32).min)


class _Inside:
    """Pairs by item, so that those of a range are found at once."""

    def __init__(self, row_M: Tensor, item_M: Tensor) -> None:
        self.item_M, order_M = item_M.sort()
        self.row_M = row_M[order_M]

    def between(self, start: int, end: int) -> Pairs:
        """Return the pairs whose items are in a range."""
        ends = torch.tensor([start, end], device=self.item_M.device)
        first, last = torch.searchsorted(self.item_M, ends).tolist()
        return self.row_M[first:last], self.item_M[first:last]


class _Above:
    """Counts what stands above some relevant items, which items near their scores decide once these are known."""

    def __init__(self, near_P: Tensor, examples: RankingExamples, pair_T: Tensor) -> None:
        row_P, item_P = examples.target
        self.pair_T, self.pairs = pair_T, len(row_P)
        self.row_T, self.item_T = row_P[pair_T], item_P[pair_T]
        self.subject_T = examples.subject_B[self.row_T]
        self.every = len(pair_T) == len(examples.subject_B) and bool(
            (self.row_T == torch.arange(len(pair_T), device=row_P.device)).all()
        )
        near_T = near_P[pair_T]
        far_T = NEARBY * (near_T.abs() + (near_T.abs().max() if len(near_T) else 0))
        self.low_T, self.high_T = near_T - far_T, near_T + far_T
        self.own_T = torch.full_like(near_T, torch.nan)
        self.count_T = torch.zeros_like(pair_T)
        self.near_T = torch.zeros_like(pair_T)
        self.close: list[tuple[Tensor, Tensor, Tensor]] = []
        self.mask = torch.empty(0, dtype=torch.bool, device=row_P.device)

    def add(self, score_BW: Tensor, start: int, column_C: Tensor | None = None) -> None:
        """Count in a block, or in some columns of it."""
        if not len(self.pair_T):
            return
        place_T = self.item_T - start
        inside_T = ((place_T >= 0) & (place_T < score_BW.shape[1])).nonzero()[:, 0]
        self.own_T[inside_T] = score_BW[self.row_T[inside_T], place_T[inside_T]].float()
        score_TW = score_BW if self.every else score_BW[self.row_T]
        if column_C is not None:
            score_TW = score_TW[:, column_C]
        high_T = self._count_above(score_TW, self.high_T)
        near_T = self._count_above(score_TW, self.low_T) - high_T
        self.count_T += high_T
        self.near_T += near_T
        some_S = ((near_T > 0) & (self.near_T <= MOST_NEARBY)).nonzero()[:, 0]
        if len(some_S):
            score_SW = score_TW[some_S]
            high_S1, low_S1 = self.high_T[some_S, None], self.low_T[some_S, None]
            row_C, place_C = ((score_SW > low_S1) & (score_SW <= high_S1)).nonzero().unbind(1)
            item_C = start + (place_C if column_C is None else column_C[place_C])
            self.close.append((some_S[row_C], item_C, score_SW[row_C, place_C].float()))

    def _count_above(self, score_TW: Tensor, least_T: Tensor) -> Tensor:
        """Return how many scores of each row are above one, int64 (T,)."""
        if len(self.mask) < score_TW.numel():  # new memory costs more than the comparison does
            self.mask = torch.empty(score_TW.numel(), dtype=torch.bool, device=score_TW.device)
        mask_TW = self.mask[: score_TW.numel()].view(score_TW.shape)
        if host_reads(score_TW):  # numpy compares with a column in a quarter of the time
            np.greater(score_TW.numpy(), least_T[:, None].numpy(), out=mask_TW.numpy())
        else:
            torch.gt(score_TW, least_T[:, None], out=mask_TW)
        return counted(mask_TW)

    @property
    def left_P(self) -> Tensor:
        """Return which pairs cannot be decided: too many items are near, or the score was not where it was expected."""
        outside_T = (self.own_T <= self.low_T) | (self.own_T > self.high_T)
        left_T = (self.own_T > -torch.inf) & (outside_T | (self.near_T > MOST_NEARBY))
        return self._spread(left_T)

    def ranks(self) -> Tensor:
        """Return each pair's rank, int64 (P,); 0 where it is not ranked, or not counted here."""
        rank_T = self.count_T + 1
        if self.close:
            pair_C, item_C, score_C = (torch.cat(parts) for parts in zip(*self.close, strict=True))
            own_C, mine_C = self.own_T[pair_C], self.item_T[pair_C]
            subject_C = self.subject_T[pair_C]
            number_C, own_number_C = order_number(subject_C, item_C), order_number(subject_C, mine_C)
            before_C = (number_C < own_number_C) | ((number_C == own_number_C) & (item_C < mine_C))
            above_C = (score_C > own_C) | ((score_C == own_C) & before_C)
            rank_T = rank_T.index_add(0, pair_C, above_C.long())
        return self._spread(torch.where(self.own_T > -torch.inf, rank_T, 0))

    def _spread(self, value_T: Tensor) -> Tensor:
        """Return values by pair, 0 of pairs that are not counted here."""
        return value_T.new_zeros(self.pairs).index_copy(0, self.pair_T, value_T)


class _Best:
    """The best items so far of each example, and a few more."""

    def __init__(self, users: int, most: int, device: torch.device) -> None:
        self.most = most
        self.value_BT = torch.full((users, most + SPARE), -torch.inf, device=device)
        self.item_BT = torch.zeros(users, most + SPARE, dtype=torch.int64, device=device)

    def add(self, score_BW: Tensor, start: int) -> None:
        """Take in what a block has that is better."""
        row_R = (score_BW.amax(1).float() > self.value_BT[:, -1]).nonzero()[:, 0]
        if not len(row_R):
            return
        # A block is looked at as columns of every G-th item: the best items are in the columns with the highest peaks.
        columns = -(-score_BW.shape[1] // PER_COLUMN)
        score_RW = score_BW if len(row_R) == len(score_BW) else score_BW[row_R]
        if missing := columns * PER_COLUMN - score_RW.shape[1]:
            score_RW = nn.functional.pad(score_RW, (0, missing), value=-torch.inf)
        score_RJG = score_RW.reshape(len(row_R), PER_COLUMN, columns)
        size = self.value_BT.shape[1]
        column_RS = score_RJG.amax(1).topk(min(size, columns), dim=1).indices
        every_R1 = torch.arange(len(row_R), device=row_R.device)[:, None]
        score_RN = score_RJG.transpose(1, 2)[every_R1, column_RS].flatten(1).float()
        new = score_RN.topk(min(size, score_RN.shape[1]), dim=1)
        item_RT = column_RS.gather(1, new.indices // PER_COLUMN) + new.indices % PER_COLUMN * columns + start
        both = torch.cat([self.value_BT[row_R], new.values], 1).topk(size, dim=1)
        item_RX = torch.cat([self.item_BT[row_R], item_RT], 1)
        self.value_BT[row_R], self.item_BT[row_R] = both.values, item_RX.gather(1, both.indices)

    def lists(self, subject_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best items and scores, as `ranks.best` gives them, and whose last place too many share."""
        last_B = self.value_BT[:, self.most - 1]
        crowded_B = (self.value_BT[:, -1] == last_B) & (last_B > -torch.inf)
        item_BT, order_BT = self.item_BT.sort(1)
        value_BT = self.value_BT.gather(1, order_BT)
        order_BT = order_number(subject_B[:, None], item_BT).argsort(dim=1, stable=True)
        item_BT, value_BT = item_BT.gather(1, order_BT), value_BT.gather(1, order_BT)
        value_BT, order_BT = value_BT.sort(dim=1, descending=True, stable=True)
        item_BK, value_BK = item_BT.gather(1, order_BT)[:, : self.most], value_BT[:, : self.most]
        return torch.where(value_BK > -torch.inf, item_BK, 0), value_BK, crowded_B


def host_reads(value: Tensor) -> bool:
    """Return whether numpy has this tensor's values at no cost."""
    return transfer.host_knows(value) and value.dtype != torch.bfloat16 and not value.requires_grad


def counted(mask_BW: Tensor) -> Tensor:
    """Return how many of each row are true, int64 (B,); on a CPU by numpy, which counts bytes in no time."""
    if transfer.host_knows(mask_BW):
        return torch.tensor([np.count_nonzero(row_W) for row_W in mask_BW.numpy()], dtype=torch.int64)
    return mask_BW.sum(1)


def _count_ranked(examples: RankingExamples, num_items: int, among_I: Tensor) -> Tensor:
    """Return how many of some items are ranked for each example, int64 (B,): those that are not left out."""
    users = len(examples.subject_B)
    key_M, key_P = (row * num_items + item for row, item in (examples.left_out, examples.target))
    key_M = key_M.unique()
    key_M = key_M[~torch.isin(key_M, key_P) & (key_M % num_items > 0) & among_I[key_M % num_items]]
    everything = int(among_I[1:].sum())
    return everything - torch.bincount(key_M // num_items, minlength=users)
