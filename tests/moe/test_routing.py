"""Routing: probabilities, top-k static and dynamic, balance."""

import math

import pytest
import torch

from rec.moe.balance import assignments, balance, router_z
from rec.moe.health import health
from rec.moe.routing import keep_all, keep_share, keep_top_k, softmax


def test_probabilities_sum_to_one_and_follow_permutations() -> None:
    score = torch.randn(20, 5) * 4
    probability = softmax(score, 0.7)
    torch.testing.assert_close(probability.sum(1), torch.ones(20))
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(softmax(score[:, order], 0.7), probability[:, order])


def test_low_temperature_is_argmax() -> None:
    score = torch.tensor([[1.0, 2.0, 1.5]])
    torch.testing.assert_close(softmax(score, 0.01), torch.tensor([[0.0, 1.0, 0.0]]))


def test_top_k_keeps_k_and_renormalises() -> None:
    routing = keep_top_k(torch.tensor([[0.5, 0.1, 0.4]]), 2)
    assert routing.expert_NK.tolist() == [[0, 2]]
    torch.testing.assert_close(routing.weight_NK, torch.tensor([[5 / 9, 4 / 9]]))
    torch.testing.assert_close(routing.dense(), torch.tensor([[5 / 9, 0, 4 / 9]]))


@pytest.mark.parametrize(
    ("share", "kept"), [(0.4, [0.5 / 0.5, 0, 0]), (0.6, [0.5 / 0.8, 0, 0.3 / 0.8]), (1.0, [0.5, 0.2, 0.3])]
)
def test_dynamic_top_k_keeps_the_fewest_that_reach_the_share(share: float, kept: list[float]) -> None:
    torch.testing.assert_close(keep_share(torch.tensor([[0.5, 0.2, 0.3]]), share).dense(), torch.tensor([kept]))


def test_keep_all_is_the_gate_itself() -> None:
    probability = torch.rand(4, 3).softmax(-1)
    assert torch.equal(keep_all(probability).dense(), probability)


def test_balance_is_one_for_even_use_and_grows_with_collapse() -> None:
    even = keep_top_k(torch.eye(4)[torch.arange(8) % 4] * 0.96 + 0.01, 1)
    collapsed = keep_top_k(torch.tensor([[0.97, 0.01, 0.01, 0.01]]).expand(8, 4), 1)
    assert balance(even, assignments(even)).item() / 8 == pytest.approx(1.0)
    assert balance(collapsed, assignments(collapsed)).item() / 8 == pytest.approx(4 * 0.97)
    assert health(assignments(even)) == pytest.approx({"use_entropy": 1.0, "largest_share": 0.25, "unused": 0.0})
    assert health(assignments(collapsed)) == pytest.approx({"use_entropy": 0.0, "largest_share": 1.0, "unused": 3.0})


def test_the_balance_of_two_workers_is_that_of_the_joined_batch() -> None:
    probability = torch.randn(30, 4).softmax(-1).requires_grad_()
    whole = keep_top_k(probability, 2)
    parts = [keep_top_k(p, 2) for p in probability.split(21)]
    count = sum(assignments(p) for p in parts)
    assert torch.equal(count, assignments(whole))
    a, b = balance(whole, count), sum(balance(p, count) for p in parts)
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(*(torch.autograd.grad(x, probability, retain_graph=True)[0] for x in (a, b)))


def test_router_z_by_hand() -> None:
    score = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    expected = math.log(2) ** 2 + (1 + math.log(2)) ** 2
    assert router_z(score).item() == pytest.approx(expected)
