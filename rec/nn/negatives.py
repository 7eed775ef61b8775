"""Uniform negatives that a user has not seen, drawn on the device from torch's generator."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from rec import transfer
from rec.nn.mapped import MappedGraph

ROUNDS = 20
LAST = torch.iinfo(torch.int64).max


def unseen(user_N: Tensor, seen_user_M: Tensor, seen_item_M: Tensor, num_items: int, count: int) -> Tensor:
    """Return `count` items for each entry of `user_N`, uniform over the items its user has not seen, (N, count).

    Those of a user who has seen everything are 0. Drawn by rejection, and exactly where many rounds have not sufficed;
    exactly at once where the host would have to wait for each round.
    """
    if not transfer.host_knows(user_N):
        return _unseen_at_once(user_N, seen_user_M, seen_item_M, num_items, count)
    key_M = (seen_user_M * (num_items + 1) + seen_item_M).unique()
    drawn = torch.randint(1, num_items + 1, (len(user_N), count), device=user_N.device)
    if not len(key_M):
        return drawn
    base_N = user_N * (num_items + 1)
    first_N, last_N = torch.searchsorted(key_M, base_N + 1), torch.searchsorted(key_M, base_N + num_items + 1)
    drawn = torch.where((last_N - first_N >= num_items)[:, None], 0, drawn)
    base = base_N[:, None].expand_as(drawn)
    for _ in range(ROUNDS):
        bad = _among(key_M, base + drawn)
        if not bad.any():
            return drawn
        drawn[bad] = torch.randint(1, num_items + 1, (int(bad.sum()),), device=drawn.device)
    bad = _among(key_M, base + drawn)
    row_X = bad.nonzero()[:, 0]
    drawn[bad] = _exactly(key_M, first_N[row_X], last_N[row_X], user_N[row_X], num_items)
    return drawn


def _unseen_at_once(user_N: Tensor, seen_user_M: Tensor, seen_item_M: Tensor, num_items: int, count: int) -> Tensor:
    """Return `unseen` by one draw of a rank among each user's unseen items; no shape depends on values."""
    return _ranked(user_N, _distinct(seen_user_M * (num_items + 1) + seen_item_M), num_items, count)


def _distinct(key_M: Tensor) -> Tensor:
    """Return keys sorted; what is there twice goes behind all others, as `LAST`."""
    key_M = key_M.sort().values
    again_M = torch.zeros_like(key_M, dtype=torch.bool)
    again_M[1:] = key_M[1:] == key_M[:-1]
    return key_M.masked_fill(again_M, LAST).sort().values


def _ranked(user_N: Tensor, key_M: Tensor, num_items: int, count: int) -> Tensor:
    """Return `count` of each user's unseen items, 0 where there are none, given the sorted keys of what is seen."""
    stride = num_items + 1
    base_N = user_N * stride
    first_N, last_N = torch.searchsorted(key_M, base_N + 1), torch.searchsorted(key_M, base_N + stride)
    left_NC = (num_items - (last_N - first_N))[:, None].expand(-1, count)
    rank_NC = (torch.rand(left_NC.shape, device=left_NC.device, dtype=torch.float64) * left_NC).long()
    before_M = _before(key_M, stride)
    place_NC = torch.searchsorted(before_M, base_N[:, None] + rank_NC, right=True)
    return torch.where(left_NC > 0, rank_NC + 1 + place_NC - first_N[:, None], 0)


def _before(key_M: Tensor, stride: int) -> Tensor:
    """Return, for each item that a user has seen, the user's base and how many unseen ones come before; they rise."""
    base_M = key_M - key_M % stride
    start_M = torch.searchsorted(key_M, base_M + 1)
    place_M = torch.arange(len(key_M), device=key_M.device)
    return torch.where(key_M < LAST, key_M - 1 - (place_M - start_M), key_M)


def _among(key_M: Tensor, key: Tensor) -> Tensor:
    place = torch.searchsorted(key_M, key).clamp(max=len(key_M) - 1)
    return key_M[place] == key


def _exactly(key_M: Tensor, first_X: Tensor, last_X: Tensor, user_X: Tensor, num_items: int) -> Tensor:
    """Return an unseen item for each user, whose seen items lie between two places in `key_M`, (X,)."""
    left_X = num_items - (last_X - first_X)
    rank_X = (torch.rand(len(left_X), device=left_X.device, dtype=torch.float64) * left_X).long()
    # How many unseen items come before each seen one; they rise within a user.
    user_M, stride = key_M // (num_items + 1), num_items + 1
    start_M = torch.searchsorted(key_M, user_M * stride + 1)
    before_M = key_M - user_M * stride - 1 - (torch.arange(len(key_M), device=key_M.device) - start_M)
    place_X = torch.searchsorted(user_M * stride + before_M, user_X * stride + rank_X, right=True)
    return rank_X + 1 + place_X - first_X


class Popular:
    """Draws items, from 1, with probabilities that rise with a power of how often each occurs; power 0 is uniform.

    Args:
        count_I: How often each item occurs, padding included; what never does counts as once.
        power: The exponent.
    """

    def __init__(self, count_I: Tensor, power: float) -> None:
        weight_I = count_I.double().clamp(min=1) ** power
        weight_I[0] = 0
        self.up_to_I = weight_I.cumsum(0)

    def draw(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return `count` items, drawn independently, and how often each is expected among them, (C,) each."""
        if self.up_to_I.device != device:
            self.up_to_I = self.up_to_I.to(device)
        total = self.up_to_I[-1]
        place_C = torch.rand(count, dtype=torch.float64, device=device) * total
        item_C = torch.searchsorted(self.up_to_I, place_C, right=True).clamp(max=len(self.up_to_I) - 1)
        weight_C = self.up_to_I[item_C] - self.up_to_I[item_C - 1]
        return item_C, (count * weight_C / total).float()


class Unseen:
    """Draws items uniformly from a list, none that its user has seen; what was seen is sorted once.

    Args:
        user_E: Users of what was seen, from 0.
        item_E: Items seen, from 1.
        item_W: The items that may be drawn.
    """

    full_F: Tensor
    """The users who have seen every item that may be drawn, rising: nothing can be drawn for them."""

    def __init__(self, user_E: Tensor, item_E: Tensor, item_W: Tensor) -> None:
        self.item_W = item_W
        self.stride = int(torch.cat([item_E, item_W]).max()) + 1
        self.key_E = (user_E * self.stride + item_E).sort().values
        key_E = self.key_E.unique()
        inside_E = torch.isin(key_E % self.stride, item_W)
        self.full_F = _full(torch.bincount(key_E[inside_E] // self.stride), item_W)
        self.ranks: tuple[Tensor, Tensor] | None = None

    def to(self, device: torch.device) -> Unseen:
        """Return this with its tensors on another device; itself where they are there already."""
        if self.key_E.device == device:
            return self
        found = copy(self)
        found.item_W, found.key_E = self.item_W.to(device), self.key_E.to(device)
        found.full_F, found.ranks = self.full_F.to(device), None
        return found

    def seen(self, user_M: Tensor, item_M: Tensor) -> Tensor:
        """Return whether users have seen items, bool (M,)."""
        key_M = user_M * self.stride + item_M
        place_M = torch.searchsorted(self.key_E, key_M).clamp(max=len(self.key_E) - 1)
        return self.key_E[place_M] == key_M

    def with_some(self, user_N: Tensor) -> Tensor | None:
        """Return which users something can be drawn for, bool (N,); None where that is so for every user there is."""
        return ~torch.isin(user_N, self.full_F) if len(self.full_F) else None

    def draw(self, user_N: Tensor) -> Tensor:
        """Return an item for each user, none of whom has seen everything, (N,)."""
        if not transfer.host_knows(user_N):
            return self._drawn_at_once(user_N)
        drawn_N = self.item_W[torch.randint(len(self.item_W), (len(user_N),), device=user_N.device)]
        open_M = torch.arange(len(user_N), device=user_N.device)
        while len(open_M):
            open_M = open_M[self.seen(user_N[open_M], drawn_N[open_M])]
            drawn_N[open_M] = self.item_W[torch.randint(len(self.item_W), (len(open_M),), device=user_N.device)]
        return drawn_N

    def _drawn_at_once(self, user_N: Tensor) -> Tensor:
        """Return `draw` by one draw of a rank among each user's unseen items; no shape depends on values."""
        stride = len(self.item_W) + 1
        if self.ranks is None:
            item_W = self.item_W.sort().values
            item_E = self.key_E % self.stride
            place_E = torch.searchsorted(item_W, item_E).clamp(max=len(item_W) - 1)
            key_E = self.key_E // self.stride * stride + place_E + 1
            self.ranks = item_W, _distinct(key_E.masked_fill(item_W[place_E] != item_E, LAST))
        item_W, key_M = self.ranks
        return item_W[_ranked(user_N, key_M, stride - 1, 1)[:, 0] - 1]


class MappedUnseen(Unseen):
    """Draws items uniformly from all that have an edge, none that its user has one with; edges are read from files."""

    def __init__(self, graph: MappedGraph, item_W: Tensor) -> None:
        self.graph, self.item_W = graph, item_W
        self.full_F = _full(graph.first_R.diff()[: graph.num_users], item_W)

    def to(self, device: torch.device) -> MappedUnseen:
        """Return this with the items on another device."""
        return self if self.item_W.device == device else MappedUnseen(self.graph, self.item_W.to(device))

    def seen(self, user_M: Tensor, item_M: Tensor) -> Tensor:
        """Return whether users have edges with items, bool (M,)."""
        return self.graph.has(user_M.cpu(), item_M.cpu()).to(user_M.device)


def _full(count_U: Tensor, item_W: Tensor) -> Tensor:
    """Return the users who have seen as many items as may be drawn."""
    return (count_U >= len(item_W)).nonzero()[:, 0]
