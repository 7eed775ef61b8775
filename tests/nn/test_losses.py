"""Losses against their definitions and each other."""

import math

import pytest
import torch

from rec.nn import losses


def test_full_cross_entropy_equals_torchs_without_padding() -> None:
    torch.manual_seed(0)
    state = torch.randn(2500, 8, requires_grad=True)
    item = torch.randn(30, 8, requires_grad=True)
    target = torch.randint(1, 30, (2500,))
    ours = losses.full_cross_entropy(state, item, target)
    theirs = torch.nn.functional.cross_entropy((state @ item.T)[:, 1:], target - 1, reduction="sum")
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(2 * ours, (state, item)), torch.autograd.grad(2 * theirs, (state, item)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)  # sums over 2,500 rows in another order


def test_sampled_softmax_over_all_items_is_the_full_one() -> None:
    state, item = torch.randn(5, 4), torch.randn(9, 4)
    target = torch.tensor([1, 2, 3, 4, 8])
    score = state @ item.T
    negatives = torch.stack([torch.tensor([i for i in range(1, 9) if i != t]) for t in target])
    ours = losses.cross_entropy(score.gather(1, target[:, None])[:, 0], score.gather(1, negatives))
    torch.testing.assert_close(ours, losses.full_cross_entropy(state, item, target))


def test_bce_by_hand() -> None:
    positive, negative = torch.tensor([0.0, 2.0]), torch.tensor([[0.0], [-1.0]])
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    expected = -(math.log(0.5) + math.log(sigmoid(2)) + math.log(0.5) + math.log(1 - sigmoid(-1)))
    assert losses.binary_cross_entropy(positive, negative).item() == pytest.approx(expected, rel=1e-6)


def test_gbce_without_calibration_is_bce_over_the_negatives() -> None:
    positive, negative = torch.randn(6), torch.randn(6, 5)
    plain = -torch.nn.functional.logsigmoid(positive).sum() - torch.nn.functional.logsigmoid(-negative).sum()
    torch.testing.assert_close(losses.gbce(positive, negative, 100, 0.0), plain / 6)


@pytest.mark.parametrize("calibration", [0.25, 0.75, 1.0])
def test_gbce_equals_the_published_transformation(calibration: float) -> None:
    positive, negative = torch.randn(6).double() * 3, torch.randn(6, 5).double()
    alpha = 5 / 99
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    transformed = losses.gbce_transformed(positive, beta)
    logsigmoid = torch.nn.functional.logsigmoid
    expected = -(logsigmoid(transformed).sum() + logsigmoid(-negative).sum()) / 6
    torch.testing.assert_close(
        losses.gbce(positive, negative, 100, calibration).double(), expected, rtol=1e-5, atol=1e-5
    )


def test_chunks_add_up_and_carry_gradients() -> None:
    x = torch.randn(3000, 2, requires_grad=True)
    whole, parts = (x**2).sum(), losses.chunked_sum(lambda c: (c**2).sum(), x)
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(*(torch.autograd.grad(y, x)[0] for y in (whole, parts)))


def test_two_shards_sum_to_one_batch() -> None:
    state, item, target = torch.randn(10, 4), torch.randn(9, 4), torch.randint(1, 9, (10,))
    whole = losses.full_cross_entropy(state, item, target)
    parts = [losses.full_cross_entropy(s, item, t) for s, t in zip(state.split(7), target.split(7), strict=True)]
    torch.testing.assert_close(whole, sum(parts))
