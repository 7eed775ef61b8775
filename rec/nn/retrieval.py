"""The best items of a catalogue for a batch of users, exactly, whatever the catalogue's size.

Letters: B users, I items with padding as item 0, W items of one block, M hidden (user, item) pairs, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Score = Callable[[slice], Tensor]
"""Scores every user against a range of items, (B, W)."""
BLOCK = 1 << 17
"""Items scored at once: their vectors of 64 numbers fill 32 MiB, so that the scores of a few users stay in cache."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request wants of a ranking, in item indices."""

    k: int = 10
    exclude: tuple[int, ...] = ()
    """Items to leave out beside those the user has seen."""
    candidates: tuple[int, ...] | None = None
    """The only items to rank, seen ones too; None ranks all unseen ones."""
    explain: bool = False
    """Whether the answer tells the weights behind each item."""


def top_items(
    score: Score, num_items: int, asks: Sequence[Ask], seen: tuple[Tensor, Tensor], block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """Return the items with the highest scores and the scores, both (B, K) for the largest k, best first.

    Items that an ask leaves out, seen ones and padding have -inf. One block of scores is held at a time.

    Args:
        score: The scores of a range of items; it may be written to.
        num_items: Items, padding included.
        asks: One per user.
        seen: (user, item) pairs to leave out, each (M,); does not hold for users who name candidates.
        block: Items scored at once.
    """
    most = min(max(ask.k for ask in asks), num_items)
    hidden_user, hidden_item = _hidden(asks, seen)
    named = {row: ask.candidates for row, ask in enumerate(asks) if ask.candidates is not None}
    allowed = {row: torch.tensor(candidates, dtype=torch.int64) for row, candidates in named.items()}
    values: list[Tensor] = []
    items: list[Tensor] = []
    for start in range(0, num_items, block):
        end = min(start + block, num_items)
        score_BW = score(slice(start, end))
        if start == 0:
            score_BW[:, 0] = -torch.inf
        inside = (hidden_item >= start) & (hidden_item < end) if end - start < num_items else slice(None)
        score_BW[hidden_user[inside], hidden_item[inside] - start] = -torch.inf
        for row, candidate_C in allowed.items():
            kept_C = candidate_C[(candidate_C >= start) & (candidate_C < end)] - start
            kept = score_BW[row, kept_C]
            score_BW[row] = -torch.inf
            score_BW[row, kept_C] = kept
        best = score_BW.topk(min(most, end - start), dim=1)
        values.append(best.values)
        items.append(best.indices + start)
    if len(values) == 1:
        return items[0], values[0]
    joined = torch.cat(values, 1).topk(most, dim=1)
    return torch.cat(items, 1).gather(1, joined.indices), joined.values


def top_among(
    candidate_BC: Tensor, score_BC: Tensor, asks: Sequence[Ask], seen: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return what `top_items` does, among each user's candidates alone (0 where there are fewer)."""
    hidden_user, hidden_item = _hidden(asks, seen)
    score_BC = score_BC.masked_fill(candidate_BC == 0, -torch.inf)
    for row in range(len(asks)):
        left_out = torch.isin(candidate_BC[row], hidden_item[hidden_user == row])
        score_BC[row].masked_fill_(left_out, -torch.inf)
    best = score_BC.topk(min(max(ask.k for ask in asks), score_BC.shape[1]), dim=1)
    return candidate_BC.gather(1, best.indices), best.values


def as_lists(items_BK: Tensor, scores_BK: Tensor, asks: Sequence[Ask]) -> list[tuple[list[int], list[float]]]:
    """Return each user's own k items and scores; what was left out is cut off."""
    kept_B = scores_BK.isfinite().sum(1).tolist()
    rows = zip(items_BK.tolist(), scores_BK.tolist(), kept_B, asks, strict=True)
    return [(items[: min(kept, ask.k)], scores[: min(kept, ask.k)]) for items, scores, kept, ask in rows]


def _hidden(asks: Sequence[Ask], seen: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the (user, item) pairs that are left out."""
    user, item = seen
    named = [row for row, ask in enumerate(asks) if ask.candidates is not None]
    if named:
        free = ~torch.isin(user, torch.tensor(named, device=user.device))
        user, item = user[free], item[free]
    pairs = [(row, index) for row, ask in enumerate(asks) for index in ask.exclude]
    if pairs:
        more = torch.tensor(pairs, device=user.device)
        user, item = torch.cat([user, more[:, 0]]), torch.cat([item, more[:, 1]])
    return user, item
