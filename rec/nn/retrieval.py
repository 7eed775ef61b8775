"""The best items of a catalogue for a batch of users, exactly, whatever the catalogue's size.

Letters: B users, I items with padding as item 0, W items of one block, M hidden (user, item) pairs, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rec.transfer import sent, to_device, to_host

Lists = list[tuple[list[int], list[float]]]
"""Each user's items and their scores."""
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
        seen: (user, item) pairs to leave out, each (M,); does not hold for users who name candidates. On the host they
            make it wait for nothing, elsewhere once per block where there are several.
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
        user, item = hidden_user, hidden_item
        if end - start < num_items:
            inside_X = ((item >= start) & (item < end)).nonzero()[:, 0]
            user, item = user[inside_X], item[inside_X]
        score_BW[sent(user, score_BW.device), sent(item - start, score_BW.device)] = -torch.inf
        for row, candidate_C in allowed.items():
            kept_C = sent(candidate_C[(candidate_C >= start) & (candidate_C < end)] - start, score_BW.device)
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
        left_out = torch.isin(candidate_BC[row], sent(hidden_item[hidden_user == row], candidate_BC.device))
        score_BC[row].masked_fill_(left_out, -torch.inf)
    best = score_BC.topk(min(max(ask.k for ask in asks), score_BC.shape[1]), dim=1)
    return candidate_BC.gather(1, best.indices), best.values


def as_lists(items_BK: Tensor, scores_BK: Tensor, asks: Sequence[Ask]) -> Lists:
    """Return each user's own k items and scores; what was left out is cut off. The host waits once."""
    return all_as_lists([(items_BK, scores_BK)], asks, [])[0][0]


def all_as_lists(
    found: Sequence[tuple[Tensor, Tensor]], asks: Sequence[Ask], more: Sequence[Tensor]
) -> tuple[list[Lists], list[Tensor]]:
    """Return `as_lists` of several rankings, and what else the host is to know; it waits once for all."""
    asked = [part for items_BK, scores_BK in found for part in (items_BK, scores_BK, scores_BK.isfinite().sum(1))]
    known = to_host([*asked, *more])
    lists = []
    for first in range(0, len(asked), 3):
        rows = zip(*(part.tolist() for part in known[first : first + 3]), asks, strict=True)
        lists.append([(items[: min(kept, ask.k)], scores[: min(kept, ask.k)]) for items, scores, kept, ask in rows])
    return lists, known[len(asked) :]


def _hidden(asks: Sequence[Ask], seen: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the (user, item) pairs that are left out."""
    user, item = seen
    named = [row for row, ask in enumerate(asks) if ask.candidates is not None]
    if named:
        free = ~torch.isin(user, to_device(named, torch.int64, user.device))
        user, item = user[free], item[free]
    pairs = [(row, index) for row, ask in enumerate(asks) for index in ask.exclude]
    if pairs:
        more = sent(torch.tensor(pairs), user.device)
        user, item = torch.cat([user, more[:, 0]]), torch.cat([item, more[:, 1]])
    return user, item
