"""Dropout, negatives, projector, controls."""

import numpy as np
import pytest
import torch

from rec.nn.dropout import Dropout
from rec.nn.modality import Compatibility, Projector, choose_vectors
from rec.nn.negatives import unseen


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(1_000_000, requires_grad=True)
    y = Dropout(0.2)(x)
    share = (y == 0).double().mean().item()
    assert share == pytest.approx(51 / 256, abs=0.002)  # 0.2 in steps of 1/256; 5 standard errors
    assert y.mean().item() == pytest.approx(1, abs=0.005)
    y.sum().backward()
    assert torch.equal(x.grad != 0, y != 0)


def test_dropout_follows_torchs_seed_and_rests_in_evaluation() -> None:
    drop, x = Dropout(0.5), torch.ones(1000)
    torch.manual_seed(1)
    first = drop(x)
    second = drop(x)
    torch.manual_seed(1)
    assert torch.equal(drop(x), first)
    assert not torch.equal(first, second)
    assert drop.eval()(x) is x


def test_negatives_are_unseen_and_cover_the_rest() -> None:
    torch.manual_seed(0)
    seen_user = torch.tensor([0, 0, 0, 1])
    seen_item = torch.tensor([1, 2, 3, 9])
    drawn = unseen(torch.tensor([0, 1]), seen_user, seen_item, 10, 2000)
    assert set(drawn[0].tolist()) == set(range(4, 11))
    assert set(drawn[1].tolist()) == set(range(1, 11)) - {9}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("hidden", [(), (7, 6)])
def test_projector_equals_a_loop_over_modalities(shared: bool, hidden: tuple[int, ...]) -> None:
    vectors = torch.randn(4, 3, 5)
    projector = Projector(vectors, width=2, hidden=hidden, shared=shared)
    for weight, bias in zip(projector.weights, projector.biases, strict=True):
        torch.nn.init.normal_(weight)
        torch.nn.init.normal_(bias)
    expected = torch.empty(4, 3, 2)
    for k in range(3):
        x = vectors[:, k]
        for i, (weight, bias) in enumerate(zip(projector.weights, projector.biases, strict=True)):
            x = x @ weight[0 if shared else k] + bias[0 if shared else k]
            x = x.relu() if i < len(hidden) else x
        expected[:, k] = x
    torch.testing.assert_close(projector(), expected)


def test_projector_starts_at_zero() -> None:
    assert Projector(torch.randn(4, 3, 5), width=2, hidden=(4,), shared=True)().abs().max() == 0


def test_bilinear_starts_as_the_inner_product() -> None:
    user, modality = torch.randn(6, 4), torch.randn(6, 3, 4)
    torch.testing.assert_close(
        Compatibility("bilinear", 4, 3)(user, modality), Compatibility("inner", 4, 3)(user, modality)
    )


def test_controls_keep_statistics_and_destroy_meaning(rng: np.random.Generator) -> None:
    text = rng.standard_normal((50, 3, 6)).astype(np.float32)
    text[0] = 0
    tables = {"text": text, "text_concatenated": text.mean(1, keepdims=True)}
    encoded, shuffled, random = (choose_vectors(tables, kind, 0).numpy() for kind in ("encoded", "shuffled", "random"))
    assert np.array_equal(encoded, text)
    assert np.allclose(np.sort(shuffled.ravel()), np.sort(text.ravel()))
    assert not np.allclose(shuffled, text)
    assert np.allclose(np.linalg.norm(random, axis=-1), np.linalg.norm(text, axis=-1), atol=1e-5)
    assert choose_vectors(tables, "concatenated", 0).shape == (50, 1, 6)
