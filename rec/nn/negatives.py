"""Uniform negatives that a user has not seen, drawn on the device from torch's generator."""

from __future__ import annotations

import torch
from torch import Tensor

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
