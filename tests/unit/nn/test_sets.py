"""Losses of predicted sets."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, multilabel_margin_loss

from rec.nn.sets import bce, interaction_loss, interaction_rate, margin


def of_scores(score_BV: torch.Tensor, label_BV: torch.Tensor) -> torch.Tensor:
    return margin(score_BV.sigmoid(), label_BV)


def padded(label_BV: torch.Tensor) -> torch.Tensor:
    """Return the labels that hold, padded with -1, as torch asks for them."""
    target_BV = torch.full(label_BV.shape, -1)
    for row, label_V in enumerate(label_BV):
        target_BV[row, : int(label_V.sum())] = label_V.nonzero().flatten()
    return target_BV


@pytest.mark.parametrize("scale", [0.0, 1.0, 8.0, 200.0])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_losses_and_gradients_are_those_of_torch(scale: float, share: float) -> None:
    draw = torch.Generator().manual_seed(3)
    score_BV = (torch.randn(9, 23, generator=draw) * scale).requires_grad_()
    label_BV = torch.rand(9, 23, generator=draw) < share
    expected = (
        (bce, binary_cross_entropy_with_logits(score_BV, label_BV.float(), reduction="none").sum(1)),
        (of_scores, multilabel_margin_loss(score_BV.sigmoid(), padded(label_BV), reduction="none")),
    )
    for loss, value_B in expected:
        torch.testing.assert_close(loss(score_BV, label_BV), value_B)
        # Gradients of the margin are sums over V pairs, and torch adds them in another order.
        found, wanted = (torch.autograd.grad(v.sum(), score_BV)[0] for v in (loss(score_BV, label_BV), value_B))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_losses_of_uneven_shards_add_up() -> None:
    draw = torch.Generator().manual_seed(4)
    score_BV, label_BV = torch.randn(8, 5, generator=draw), torch.rand(8, 5, generator=draw) < 0.4
    for loss in (bce, of_scores):
        parts = [loss(score_BV[rows], label_BV[rows]).sum() for rows in (slice(0, 1), slice(1, 1), slice(1, 8))]
        torch.testing.assert_close(sum(parts), loss(score_BV, label_BV).sum())


def test_interactions_by_hand() -> None:
    interaction_VV = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    probability_BV = torch.tensor([[0.5, 0.2, 1.0], [0.0, 1.0, 1.0]])
    expected = [0.5 * 0.2 + 0.2 * 1.0, 1.0]
    torch.testing.assert_close(interaction_loss(probability_BV, interaction_VV), torch.tensor(expected))
    set_BV = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]]).bool()
    assert interaction_rate(set_BV, interaction_VV).tolist() == pytest.approx([2 / 3, 0, 0, 0])


def test_half_precision_is_added_up_in_single() -> None:
    score_BV, label_BV = torch.full((1, 2000), 0.5, dtype=torch.bfloat16), torch.zeros(1, 2000, dtype=torch.bool)
    assert of_scores(score_BV, label_BV).dtype == torch.float32
    assert bce(score_BV, label_BV).item() == pytest.approx(2000 * math.log1p(math.exp(0.5)), rel=1e-5)
