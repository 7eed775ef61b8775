"""Batches of user histories for sequential recommenders, on packed rows.

Letters: B users, N rows (history items of all users), M seen items of all users, P items to find.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from rec.batch import Batch, Column, Columns, RaggedColumn
from rec.errors import RequestError
from rec.nn.packed import Layout, layout
from rec.nn.pairs import flattened
from rec.transfer import sent

COLUMNS = (
    Column("user", "int64", entity="user", optional=True),
    Column("history", "int32", (-1,), entity="item"),
    Column("target", "int32", entity="item", label=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryBatch(Batch):
    """The last items of B users' histories, everything that they have seen, and P items to find."""

    user_B: Tensor
    target_B: Tensor
    """The item to predict, the first of several; 0 where it is not known."""
    target_row_P: Tensor
    """Which example (0 to B - 1) is to find `target_P`."""
    target_P: Tensor
    item_N: Tensor
    position_N: Tensor
    """Index into a table of positions, anchored at the end: the last item has `max_length`, padding 0."""
    where: Layout
    seen_user_M: Tensor
    """Which example (0 to B - 1) has seen `seen_item_M`, earlier items than the input included."""
    seen_item_M: Tensor
    wanted_X: Tensor | None = None
    """Further items whose vectors a step needs beside those of `item_N`; None where all are at hand."""

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.user_B)

    def to(self, device: torch.device | str) -> Self:
        """Return this batch with every tensor on `device`; the host does not wait."""
        if torch.device(device) == self.user_B.device:
            return self
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        values: dict[str, Any] = {n: sent(v, device) for n, v in given.items() if isinstance(v, Tensor)}
        return replace(self, where=self.where.to(device), **values)

    def owners(self) -> Tensor:
        """Return the user of each packed row, (N,)."""
        return self.where.sequence_N

    @property
    def next_item_N(self) -> Tensor:
        """What each row is to predict: the next item of the same user, the target at the end."""
        following = torch.roll(self.item_N, -1)
        following[self.where.last_B] = self.target_B
        return following


def collate(rows: Columns, *, max_length: int, attend_padding: bool = False) -> HistoryBatch:
    """Return the batch of these rows: `user`, `history` (arrays of item indices), `target`.

    `attend_padding` fills every history up to `max_length` from the left with item 0 at position 0, which then takes
    part in attention: the form in which some published checkpoints were trained.

    Raises:
        RequestError: a history is empty.
    """
    seen = RaggedColumn.of(rows["history"])
    seen_B, seen_item = seen.lengths, np.array(seen.flat, np.int64)
    if len(empty := np.flatnonzero(seen_B == 0)):
        raise RequestError(f"row {empty[0]}: history is empty, expected at least one item")
    recent_B = np.minimum(seen_B, max_length)
    item = _ends(seen_item, seen_B, recent_B)
    where = layout(np.full_like(recent_B, max_length) if attend_padding else recent_B)
    position = where.position_N.numpy() + 1
    if attend_padding:
        there = position > np.repeat(max_length - recent_B, max_length)
        padded = np.zeros(len(position), np.int64)
        padded[there] = item
        item = padded
    else:
        position += np.repeat(max_length - recent_B, recent_B)
    position *= item != 0
    target, found = _targets(rows.get("target"), len(seen))
    user = np.array(rows["user"], np.int64) if "user" in rows else np.arange(len(seen))
    return HistoryBatch(
        user_B=torch.from_numpy(user),
        target_B=torch.from_numpy(target),
        target_row_P=found[0],
        target_P=found[1],
        item_N=torch.from_numpy(item),
        position_N=torch.from_numpy(position),
        where=where,
        seen_user_M=torch.from_numpy(seen.owners),
        seen_item_M=torch.from_numpy(seen_item),
    )


def _ends(value_M: np.ndarray, length_B: np.ndarray, kept_B: np.ndarray) -> np.ndarray:
    """Return the last values of each row, so many of each as are kept."""
    dropped_B = length_B - kept_B
    if not dropped_B.any():
        return value_M.copy()
    # Of every row the first values are left out, so that what is kept shifts by all that was left out so far.
    return value_M[np.arange(kept_B.sum()) + np.repeat(np.cumsum(dropped_B), kept_B)]


def _targets(given: Any, count: int) -> tuple[np.ndarray, tuple[Tensor, Tensor]]:
    """Return each example's first target, and all of them as (example, item): one number each, or lists."""
    listed = isinstance(given, RaggedColumn) or (isinstance(given, list) and given and np.ndim(given[0]))
    if listed:
        column = RaggedColumn.of(given)
        first, some = np.zeros(count, np.int64), column.lengths > 0
        first[some] = np.asarray(column.values)[column.offset[:-1][some]]
        return first, flattened(column)
    target = np.zeros(count, np.int64) if given is None else np.array(given, dtype=np.int64)
    return target, (torch.arange(count), torch.from_numpy(target))


def sample_histories(rows: int, rng: np.random.Generator, num_items: int) -> tuple[Columns, np.ndarray]:
    """Return random rows whose users follow a cycle of items, and the items' counts."""
    length = rng.integers(2, 12, rows)
    start = rng.integers(0, num_items, rows)
    histories = [((start[b] + np.arange(n)) % num_items + 1).astype(np.int32) for b, n in enumerate(length)]
    target = ((start + length) % num_items + 1).astype(np.int32)
    count = np.bincount(np.concatenate([*histories, target]), minlength=num_items + 1).astype(np.int64)
    return {"user": np.arange(rows), "history": histories, "target": target}, count
