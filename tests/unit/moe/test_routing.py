"""Routing: probabilities, top-k static and dynamic, balance."""

import math

import pytest
import torch

from rec.moe.balance import (
    assignments,
    assignments_by_gate,
    balance,
    balance_by_gate,
    decision_entropy,
    router_z,
)
from rec.moe.health import health
from rec.moe.routing import Routing, keep_all, keep_share, keep_top_k, softmax


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


def test_the_experts_of_a_row_are_told_by_weight_without_those_it_does_not_use() -> None:
    routing = keep_share(torch.tensor([[0.5, 0.1, 0.4], [0.05, 0.9, 0.05], [0.2, 0.3, 0.5]]), 0.85)
    first, second, third = routing.experts()
    assert (list(first), list(second), list(third)) == ([0, 2], [1], [2, 1, 0])
    assert (first[0], first[2], second[1]) == pytest.approx((5 / 9, 4 / 9, 1.0))
    assert sum(third.values()) == pytest.approx(1)


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


def test_balance_by_gate_judges_every_cluster_by_itself() -> None:
    torch.manual_seed(0)
    probability, cluster = torch.randn(30, 4).softmax(-1), torch.arange(30) % 3
    routing = keep_top_k(probability, 2)
    count_CE = assignments_by_gate(routing, cluster, 3)
    assert count_CE.sum() == 60
    expected = 0.0
    for c in range(3):
        rows = (cluster == c).nonzero()[:, 0]
        part = Routing(routing.expert_NK[rows], routing.weight_NK[rows], probability[rows])
        assert torch.equal(count_CE[c], assignments(part))
        expected += float(balance(part, assignments(part)))
    assert float(balance_by_gate(routing, cluster, count_CE)) == pytest.approx(expected, rel=1e-5)


def test_entropy_of_sure_and_of_undecided_rows() -> None:
    assert float(decision_entropy(torch.eye(4))) == 0
    assert float(decision_entropy(torch.full((3, 4), 0.25))) == pytest.approx(3 * math.log(4))
