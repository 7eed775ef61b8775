"""The dispatch of expert parallelism tells who asks what it sends to other ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rec.moe.dispatch import order_by_expert
from rec.moe.experts import FeedForwardExperts
from rec.moe.routing import Routing

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytestmark = pytest.mark.ray

WIDTH, EXPERTS = 8, 4
CHOSEN = [[[0, 1], [0, 2], [2, 3]], [[0, 1], [3, 2]]]
"""Experts of each rank's rows; rank 0 holds 0 and 1, rank 1 holds 2 and 3."""


def messages(rank: int, world: int) -> tuple[list[int], bool]:
    """Return the bytes told of forward and backward, and whether the result is that of a dispatch that tells nobody."""
    from rec.runtime.exchange import ExpertParallel

    experts = FeedForwardExperts(WIDTH, 12, EXPERTS)
    experts.keep(2 * rank, 2)
    expert_NK = torch.tensor(CHOSEN[rank])
    weight_NK = torch.full(expert_NK.shape, 0.5, requires_grad=True)
    order = order_by_expert(Routing(expert_NK, weight_NK, torch.zeros(len(expert_NK), EXPERTS)), EXPERTS)
    x_ND = torch.randn(len(expert_NK), WIDTH, requires_grad=True)
    sent: list[int] = []
    y_ND = ExpertParallel(torch.distributed.group.WORLD, sent.append)(x_ND, weight_NK, order, experts)
    y_ND.sum().backward()
    other_ND = ExpertParallel(torch.distributed.group.WORLD)(x_ND, weight_NK, order, experts)
    return sent, bool((y_ND == other_ND).all())


def test_bytes_told_are_those_that_cross(ranks: Any) -> None:
    (first, same_first), (second, same_second) = ranks.run(2, messages)
    assert same_first
    assert same_second
    sizes = 8 * (1 + 2)  # rows and assignments of each expert, int64
    row = 4 * WIDTH
    # Rank 0 sends rows 1 and 2 with 3 assignments (weight and slot); one row with 2 assignments comes to it and goes
    # back. Then the gradients of both take the way back, that of a weight without its slot.
    assert sum(first) == sizes + (2 * row + 3 * 8) + 1 * row + 2 * row + (1 * row + 2 * 4)
    assert sum(second) == sizes + (1 * row + 2 * 8) + 2 * row + 1 * row + (2 * row + 3 * 4)
    assert len(first) == len(second) == 1 + 2 + 1 + 1 + 2
