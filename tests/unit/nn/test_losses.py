"""Losses against their definitions and each other."""

import math

import pytest
import torch
from torch import Tensor

from rec.benchmarks.memory import largest_bytes
from rec.nn import losses
from rec.nn.negatives import Popular


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


@pytest.mark.parametrize(("kept", "block"), [(1 << 24, 4096), (1 << 24, 7), (0, 7), (128 * 30, 30), (0, 2)])
def test_blocks_of_items_change_nothing(kept: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "SCORES_KEPT", kept)
    monkeypatch.setattr(losses, "ITEMS_PER_BLOCK", block)
    torch.manual_seed(0)
    state = (30 * torch.randn(300, 8)).requires_grad_()  # exponentials of such scores overflow
    item, target = torch.randn(30, 8, requires_grad=True), torch.randint(1, 30, (300,))
    ours = losses.full_cross_entropy(state, item, target) / 300
    score = (state.double() @ item.double().T)[:, 1:]
    theirs = torch.nn.functional.cross_entropy(score, target - 1)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    for a, b in zip(*(torch.autograd.grad(y, (state, item)) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)
    with torch.no_grad():
        torch.testing.assert_close(losses.full_cross_entropy(state, item, target) / 300, ours, rtol=0, atol=0)


def test_bfloat16_is_summed_in_float32() -> None:
    torch.manual_seed(0)
    state, item = torch.randn(300, 16), torch.randn(50, 16)
    target = torch.randint(1, 50, (300,))
    wanted = losses.full_cross_entropy(state, item, target)
    low = state.bfloat16().requires_grad_(), item.bfloat16().requires_grad_()
    found = losses.full_cross_entropy(*low, target)
    assert found.item() == pytest.approx(wanted.item(), rel=0.01)  # 8 bits of every score
    assert [g.dtype for g in torch.autograd.grad(found, low)] == [torch.bfloat16] * 2


def test_memory_of_the_full_loss_grows_neither_with_rows_nor_with_items(monkeypatch: pytest.MonkeyPatch) -> None:
    def largest(rows: int, items: int) -> int:
        state, item = torch.randn(rows, 4, requires_grad=True), torch.randn(items, 4, requires_grad=True)
        target = torch.randint(1, items, (rows,))
        return largest_bytes(lambda: losses.full_cross_entropy(state, item, target).backward())

    for name, value in (("ROWS_PER_CHUNK", 256), ("ITEMS_PER_BLOCK", 128), ("SCORES_KEPT", 1 << 18)):
        monkeypatch.setattr(losses, name, value)
    block = 4 * 256 * 128
    assert largest(300, 1000) <= block
    assert largest(300, 4000) <= block
    assert largest(2000, 4000) <= block


def test_sampled_softmax_over_all_items_is_the_full_one() -> None:
    state, item = torch.randn(5, 4), torch.randn(9, 4)
    target = torch.tensor([1, 2, 3, 4, 8])
    score = state @ item.T
    negatives = torch.stack([torch.tensor([i for i in range(1, 9) if i != t]) for t in target])
    ours = losses.cross_entropy(score.gather(1, target[:, None])[:, 0], score.gather(1, negatives))
    torch.testing.assert_close(ours, losses.full_cross_entropy(state, item, target))


def sampled(state: Tensor, item: Tensor, target: Tensor, drawn: Tensor, expected: Tensor) -> Tensor:
    positive = (state * item[target]).sum(1)
    return losses.sampled_softmax(state @ item[drawn].T, positive, expected, target, drawn)


def test_the_sampled_softmax_estimates_the_full_one_without_bias() -> None:
    torch.manual_seed(0)
    items, draws = 50, 3000
    state, item, target = torch.randn(1, 4), torch.randn(items + 1, 4), torch.tensor([7])
    exact = float((state @ item[1:].T).exp().sum())
    positive = float((state * item[target]).sum())
    for power in (0.0, 0.75):
        popular = Popular(torch.arange(items + 1) ** 2, power)
        drawn = [popular.draw(8, torch.device("cpu")) for _ in range(draws)]
        found = torch.stack([sampled(state, item, target, *pair) for pair in drawn]) + positive
        sums = found.double().exp()
        deviation = float(sums.std()) / draws**0.5
        assert abs(float(sums.mean()) - exact) < 4 * deviation
        assert deviation < 0.05 * exact


def test_the_more_is_drawn_the_nearer_the_sampled_loss_and_its_gradients_are() -> None:
    torch.manual_seed(0)
    items = 50
    state, item = torch.randn(20, 4, requires_grad=True), torch.randn(items + 1, 4, requires_grad=True)
    target = torch.randint(1, items + 1, (20,))
    full = losses.full_cross_entropy(state, item, target)
    wanted = torch.autograd.grad(full, (state, item))
    popular, errors = Popular(torch.arange(items + 1), 1.0), []
    for count in (50, 2000, 100_000):
        found = sampled(state, item, target, *popular.draw(count, torch.device("cpu")))
        grads = torch.autograd.grad(found, (state, item))
        apart = [float((a - b).norm() / b.norm()) for a, b in zip(grads, wanted, strict=True)]
        errors.append([float((found / full - 1).detach().abs()), *apart])
    assert all(first > last for first, last in zip(errors[0], errors[-1], strict=True))
    assert errors[-1] == pytest.approx([0, 0, 0], abs=0.03)


def test_a_drawn_target_counts_once() -> None:
    state, item, target = torch.randn(2, 4), torch.randn(5, 4), torch.tensor([3, 1])
    found = sampled(state, item, target, torch.tensor([1, 2, 3, 4]), torch.ones(4))
    torch.testing.assert_close(found, losses.full_cross_entropy(state, item, target))


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
    transformed = -torch.log(
        torch.expm1(beta * torch.nn.functional.softplus(-positive))
    )  # log(1 / (sigmoid^-beta - 1))
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


def test_chunks_of_rows_with_many_numbers_are_smaller() -> None:
    sizes = []

    def total(c: torch.Tensor) -> torch.Tensor:
        sizes.append(len(c))
        return c.sum()

    x = torch.ones(10, 2)
    assert float(losses.chunked_sum(total, x, numbers=losses.SCORES_KEPT // 4)) == 20
    assert sizes == [4, 4, 2]
    sizes.clear()
    assert float(losses.chunked_sum(total, x, numbers=2 * losses.SCORES_KEPT)) == 20
    assert sizes == [1] * 10


def test_two_shards_sum_to_one_batch() -> None:
    state, item, target = torch.randn(10, 4), torch.randn(9, 4), torch.randint(1, 9, (10,))
    whole = losses.full_cross_entropy(state, item, target)
    parts = [losses.full_cross_entropy(s, item, t) for s, t in zip(state.split(7), target.split(7), strict=True)]
    torch.testing.assert_close(whole, sum(parts))
