"""Batches of users with what is known of them and what is relevant, for models that score (user, item) pairs.

Letters: B users, T tags, A attributes, X tokens or width of a text's vector, P relevant pairs, M pairs of histories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec.batch import Batch, Column, RaggedColumn

COLUMNS = (
    Column("user", "int64", entity="user", optional=True),
    Column("history", "int32", (-1,), entity="item", optional=True),
    Column("target", "int32", (-1,), entity="item", label=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InteractionBatch(Batch):
    """Users, with repeats where a row is an interaction, what is known of them, and the items to be found."""

    user_B: Tensor
    """-1 where a user is in no table."""
    history_row_M: Tensor
    history_M: Tensor
    """Items known to be relevant."""
    target_row_P: Tensor
    target_P: Tensor
    """Items to be found."""

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.user_B)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsBatch(InteractionBatch):
    """Users as a model of their texts and attributes sees them."""

    text_BX: Tensor
    """Token ids, or a frozen vector."""
    attributes_BA: Tensor
    present_BM: Tensor
    """Whether text and attributes are there, (B, 2)."""
    avoid_BT: Tensor
    """Tags of items that a user must not be shown."""


def flattened(lists: Any) -> tuple[Tensor, Tensor]:
    """Return lists of items as (row, item) pairs."""
    column = RaggedColumn.of(lists)
    row, item = column.owners, np.array(column.flat, np.int64)
    if not (there := item > 0).all():
        row, item = row[there], item[there]
    return torch.from_numpy(row), torch.from_numpy(item)


def counts(row_P: Tensor, rows: int) -> Tensor:
    """Return how often each row occurs, int64 (rows,); a histogram would make the host wait for the largest number."""
    return row_P.new_zeros(rows).scatter_add_(0, row_P, torch.ones_like(row_P))


def chosen_positives(batch: PairsBatch, most: int, with_history: bool) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Return the relevant pairs of one step (row, item), and what stands for the users' histories then.

    At most `most` pairs per user, drawn anew each time. With histories, at most half of a user's pairs (rounded up) are
    to be found, and the others are the history: as in evaluation, what is to be found is no part of it.
    """
    row_P, item_P = batch.target_row_P, batch.target_P
    history = batch.history_row_M, batch.history_M
    count_B = counts(row_P, len(batch))
    limit_B = torch.full_like(count_B, most)
    if with_history:
        limit_B = torch.minimum(limit_B, (count_B + 1).div(2, rounding_mode="floor"))
    if bool((count_B > limit_B).any()):
        order = torch.rand(len(row_P), device=row_P.device).argsort()
        order = order[row_P[order].argsort(stable=True)]
        first_B = count_B.cumsum(0) - count_B
        place_P = torch.empty_like(order)
        place_P[order] = torch.arange(len(order), device=order.device) - first_B[row_P[order]]
        chosen_P = place_P < limit_B[row_P]
        if with_history:
            rest_R = (~chosen_P).nonzero()[:, 0]
            rest = row_P[rest_R], item_P[rest_R]
            history = torch.cat([history[0], rest[0]]), torch.cat([history[1], rest[1]])
        chosen_C = chosen_P.nonzero()[:, 0]
        row_P, item_P = row_P[chosen_C], item_P[chosen_C]
    return row_P, item_P, history
