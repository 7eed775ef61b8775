"""Routing: probabilities, top-k static and dynamic, balance."""

import pytest
import torch

from rec.moe.balance import balance
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
    assert balance(even).item() / 8 == pytest.approx(1.0)
    assert balance(collapsed).item() / 8 == pytest.approx(4 * 0.97)
