"""Uniform negatives that a user has not seen, drawn on the device from torch's generator."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from rec.nn.mapped import MappedGraph

ROUNDS = 20


def unseen(user_N: Tensor, seen_user_M: Tensor, seen_item_M: Tensor, num_items: int, count: int) -> Tensor:
    """Return `count` items for each entry of `user_N`, uniform over the items its user has not seen, (N, count).

    Drawn by rejection. A user who has seen nearly everything may keep a seen item after many rounds: the share of
    such draws is (seen / items) ** 20.
    """
    key_M = (seen_user_M * (num_items + 1) + seen_item_M).sort().values
    drawn = torch.randint(1, num_items + 1, (len(user_N), count), device=user_N.device)
    base = (user_N * (num_items + 1))[:, None].expand_as(drawn)
    for _ in range(ROUNDS):
        key = base + drawn
        place = torch.searchsorted(key_M, key).clamp(max=len(key_M) - 1)
        bad = key_M[place] == key
        if not bad.any():
            break
        drawn[bad] = torch.randint(1, num_items + 1, (int(bad.sum()),), device=drawn.device)
    return drawn


class Unseen:
    """Draws items uniformly from a list, none that its user has seen; what was seen is sorted once.

    Args:
        user_E: Users of what was seen, from 0.
        item_E: Items seen, from 1.
        item_W: The items that may be drawn.

    Raises:
        ValueError: a user has seen every item that may be drawn.
    """

    def __init__(self, user_E: Tensor, item_E: Tensor, item_W: Tensor) -> None:
        self.item_W = item_W
        self.stride = int(torch.cat([item_E, item_W]).max()) + 1
        self.key_E = (user_E * self.stride + item_E).sort().values
        inside_E = torch.isin(item_E, item_W)
        refuse_all(torch.bincount(user_E[inside_E]) if len(user_E) else torch.zeros(1), item_W)

    def to(self, device: torch.device) -> Unseen:
        """Return this with its tensors on another device; itself where they are there already."""
        if self.key_E.device == device:
            return self
        found = copy(self)
        found.item_W, found.key_E = self.item_W.to(device), self.key_E.to(device)
        return found

    def seen(self, user_M: Tensor, item_M: Tensor) -> Tensor:
        """Return whether users have seen items, bool (M,)."""
        key_M = user_M * self.stride + item_M
        place_M = torch.searchsorted(self.key_E, key_M).clamp(max=len(self.key_E) - 1)
        return self.key_E[place_M] == key_M

    def draw(self, user_N: Tensor) -> Tensor:
        """Return an item for each user, (N,)."""
        drawn_N = self.item_W[torch.randint(len(self.item_W), (len(user_N),), device=user_N.device)]
        open_M = torch.arange(len(user_N), device=user_N.device)
        while len(open_M):
            open_M = open_M[self.seen(user_N[open_M], drawn_N[open_M])]
            drawn_N[open_M] = self.item_W[torch.randint(len(self.item_W), (len(open_M),), device=user_N.device)]
        return drawn_N


class MappedUnseen(Unseen):
    """Draws items uniformly from all that have an edge, none that its user has one with; edges are read from files.

    Raises:
        ValueError: a user has an edge with every item that may be drawn.
    """

    def __init__(self, graph: MappedGraph, item_W: Tensor) -> None:
        self.graph, self.item_W = graph, item_W
        refuse_all(graph.first_R.diff()[: graph.num_users], item_W)

    def to(self, device: torch.device) -> MappedUnseen:
        """Return this with the items on another device."""
        return self if self.item_W.device == device else MappedUnseen(self.graph, self.item_W.to(device))

    def seen(self, user_M: Tensor, item_M: Tensor) -> Tensor:
        """Return whether users have edges with items, bool (M,)."""
        return self.graph.has(user_M.cpu(), item_M.cpu()).to(user_M.device)


def refuse_all(count_U: Tensor, item_W: Tensor) -> None:
    """Raise ValueError where a user has seen as many items as may be drawn."""
    if int(count_U.max()) >= len(item_W):
        raise ValueError(f"user {int(count_U.argmax())} has seen all {len(item_W)} items that may be drawn")
