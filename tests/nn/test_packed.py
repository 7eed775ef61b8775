"""Packed rows against slow, padded versions."""

import numpy as np
import pytest
import torch

from rec.nn.packed import SLACK, causal_attention, causal_mean, layout, sequence_scores

LENGTHS = [[1], [3, 3, 3], [5, 1, 9, 2, 9, 8], [200, 199, 180, 3, 2, 1]]


def attention_of_one(q, k, v):
    """One sequence (L, H, D), by the formula."""
    score = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    mask = torch.ones(len(q), len(q), dtype=torch.bool).tril()
    return torch.einsum("hqk,khd->qhd", score.masked_fill(~mask, -torch.inf).softmax(-1), v)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_attention_equals_the_formula_one_sequence_at_a_time(lengths: list[int]) -> None:
    torch.manual_seed(0)
    where = layout(lengths)
    qkv = [torch.randn(sum(lengths), 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weight = torch.randn(sum(lengths), 2, 4, dtype=torch.float64)
    ours = causal_attention(*qkv, where)
    grads = torch.autograd.grad((ours * weight).sum(), qkv)
    parts = [attention_of_one(*p) for p in zip(*(x.split(lengths) for x in qkv), strict=True)]
    theirs = torch.cat(parts)
    expected = torch.autograd.grad((theirs * weight).sum(), qkv)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(grads, expected)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_causal_mean_equals_a_loop(lengths: list[int]) -> None:
    x = torch.randn(sum(lengths), 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(x)
    parts = [torch.stack([p[: i + 1].mean(0) for i in range(len(p))]) for p in x.split(lengths)]
    ours, theirs = causal_mean(x, layout(lengths)), torch.cat(parts)
    torch.testing.assert_close(ours, theirs)
    a, b = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (ours, theirs))
    torch.testing.assert_close(a, b)


def test_sequence_scores_equal_a_loop() -> None:
    lengths = [4, 1, 7]
    state, candidate = torch.randn(12, 5), torch.randn(3, 6, 5)
    ours = sequence_scores(state, candidate, layout(lengths))
    theirs = torch.cat([s @ c.T for s, c in zip(state.split(lengths), candidate, strict=True)])
    torch.testing.assert_close(ours, theirs)


def test_little_is_spent_on_padding(rng: np.random.Generator) -> None:
    lengths = rng.integers(2, 201, 128)
    where = layout(lengths)
    assert len(where.row_S) <= lengths.sum() / (1 - SLACK)
    assert len(where.slabs) < 40


def test_rows_know_their_place() -> None:
    where = layout([2, 3])
    assert where.sequence_N.tolist() == [0, 0, 1, 1, 1]
    assert where.position_N.tolist() == [0, 1, 0, 1, 2]
    assert where.last_B.tolist() == [1, 4]
    with pytest.raises(ValueError, match="sequence 1 is empty"):
        layout([2, 0])
