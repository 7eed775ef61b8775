"""The dispatch of expert parallelism tells who asks what it sends to other ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rec import transfer
from rec.moe.dispatch import order_by_expert
from rec.moe.experts import FeedForwardExperts
from rec.moe.routing import Routing, keep_top_k

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytestmark = pytest.mark.ray

WIDTH, EXPERTS = 8, 4
CHOSEN = [[[0, 1], [0, 2], [2, 3]], [[0, 1], [3, 2]]]
"""Experts of each rank's rows; rank 0 holds 0 and 1, rank 1 holds 2 and 3."""


def messages(rank: int, world: int) -> tuple[list[int], list[int], bool]:
    """Return the bytes told of two rounds of forward and backward, and whether both gave the same."""
    from rec.runtime.exchange import ExpertParallel

    experts = FeedForwardExperts(WIDTH, 12, EXPERTS)
    experts.keep(2 * rank, 2)
    expert_NK = torch.tensor(CHOSEN[rank])
    weight_NK = torch.full(expert_NK.shape, 0.5, requires_grad=True)
    order = order_by_expert(Routing(expert_NK, weight_NK, torch.zeros(len(expert_NK), EXPERTS)), EXPERTS)
    x_ND = torch.randn(len(expert_NK), WIDTH, requires_grad=True)
    sent: list[int] = []
    carry_there, rounds, found = ExpertParallel(torch.distributed.group.WORLD, sent.append), [], []
    for _ in range(2):
        y_ND = carry_there(x_ND, weight_NK, order, experts)
        found.append([y_ND, *torch.autograd.grad(y_ND.sum(), [x_ND, weight_NK, *experts.parameters()])])
        rounds.append(sent.copy())
        sent.clear()
    other_ND = ExpertParallel(torch.distributed.group.WORLD)(x_ND, weight_NK, order, experts)
    same = all(bool((one == other).all()) for one, other in zip(*found, strict=True))
    return rounds[0], rounds[1], same and bool((found[0][0] == other_ND).all())


def test_bytes_told_are_those_that_cross(ranks: Any) -> None:
    (first, first_again, same_first), (second, second_again, same_second) = ranks.run(2, messages)
    assert same_first
    assert same_second
    row = 4 * WIDTH
    there = row + 2 * (4 + 2)  # with weight and number of each of at most two experts
    head = there  # rows for 2 ranks and assignments of 2 experts, int64, fit into one row
    # Rank 0 sends rows 1 and 2; one row comes to it and goes back. Then the gradients of both take the way back, each
    # with those of its weights. Nobody knows at first how many rows there will be: they come after the heads.
    assert first == [head, 2 * there, 1 * row, 2 * row, 1 * (row + 8)]
    assert second == [head, 1 * there, 2 * row, 1 * row, 2 * (row + 8)]
    # The second time there are places for them, and for one more.
    assert first_again == [head + 3 * there, 1 * row, 2 * row, 1 * (row + 8)]
    assert second_again == [head + 2 * there, 2 * row, 1 * row, 2 * (row + 8)]


def rounds(rank: int, world: int, dtype: torch.dtype, elsewhere: bool) -> None:
    """Batches of all sizes one after the other give what all experts in one process give."""
    from rec.moe.dispatch import carry
    from rec.runtime.exchange import ExpertParallel

    if elsewhere:
        transfer.host_knows = lambda value: False
    whole = FeedForwardExperts(WIDTH, 12, EXPERTS).to(dtype)
    own = FeedForwardExperts(WIDTH, 12, EXPERTS).to(dtype)
    own.keep(2 * rank, 2)
    spread = ExpertParallel(torch.distributed.group.WORLD)
    # Rounded once here and once per rank there: the last digit of numbers between 2 and 4 is 2^-6.
    close = {"rtol": 3e-2, "atol": 2**-5} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-4}
    for number, rows in enumerate(((5, 9), (0, 3), (30, 2), (31, 0), (2, 33), (0, 0), (7, 7))):
        torch.manual_seed(number)
        score, x = torch.randn(sum(rows), EXPERTS), torch.randn(sum(rows), WIDTH).to(dtype)
        mine = slice(0, rows[0]) if rank == 0 else slice(rows[0], sum(rows))
        found = []
        for experts, dispatch in ((whole, carry), (own, spread)):
            x_ND = x[mine].clone().requires_grad_()
            routing = keep_top_k(score[mine].softmax(-1).requires_grad_(), 2)
            order = order_by_expert(routing, EXPERTS)
            y_ND = dispatch(x_ND, routing.weight_NK, order, experts)  # type: ignore[operator]
            grads = torch.autograd.grad(y_ND.float().square().sum(), [x_ND, routing.weight_NK])
            found.append([y_ND, *grads])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, **close)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_beyond_the_places_of_the_last_batch_come_too(ranks: Any, dtype: torch.dtype, elsewhere: bool) -> None:
    ranks.run(2, rounds, dtype, elsewhere)
