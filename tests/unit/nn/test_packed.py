"""Packed rows against slow, padded versions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from rec.nn.packed import (
    SLACK,
    causal_attention,
    causal_mean,
    edge_attention,
    layout,
    sequence_scores,
    slab_attention,
    takes_edges,
)

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


class OnCpu(TorchDispatchMode):
    """Computes torch's attention over sequences of any lengths, which has kernels for GPUs alone, as it is documented.

    It takes what the operator is told, so that what we tell it has to be right.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.torch_attn._varlen_attn.default:
            return func(*args, **(kwargs or {}))
        self.calls += 1
        query, key, value, edge_q, edge_k, most_q, most_k, causal, scale, window = args[:10]
        assert edge_q.dtype == edge_k.dtype == torch.int32
        assert (causal, scale, list(window)) == (True, None, [-1, 0])
        stretches = list(pairwise(edge_q.tolist()))
        assert most_q == most_k == max(end - start for start, end in stretches)
        parts = [attention_of_one(*(x[start:end] for x in (query, key, value))) for start, end in stretches]
        return torch.cat(parts), query.new_zeros(query.shape[1], len(query)), torch.zeros(2, dtype=torch.uint64)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_one_call_for_all_sequences_is_told_where_they_lie(lengths: list[int]) -> None:
    pytest.importorskip("torch.nn.attention.varlen", reason="torch before 2.10")
    qkv = [torch.randn(sum(lengths), 2, 8, dtype=torch.float64) for _ in range(3)]
    where = layout(lengths)
    with OnCpu() as mode:
        ours = edge_attention(*qkv, where)
    torch.testing.assert_close(ours, slab_attention(*qkv, where))
    assert mode.calls == 1


@pytest.mark.parametrize(
    ("device", "dtype", "rows", "width"),
    [
        ("cpu", torch.bfloat16, 5, 64),
        ("cuda", torch.float32, 5, 64),
        ("cuda", torch.bfloat16, 5, 12),
        ("cuda", torch.bfloat16, 5, 264),
        ("cuda", torch.float16, 0, 64),
    ],
)
def test_what_one_call_does_not_take_goes_by_slabs(device: str, dtype: torch.dtype, rows: int, width: int) -> None:
    with FakeTensorMode():
        assert not takes_edges(torch.empty(rows, 1, width, device=device, dtype=dtype))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here, and the operator has kernels for GPUs alone")
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_one_call_on_a_gpu_equals_the_slabs(lengths: list[int]) -> None:
    torch.manual_seed(0)
    where = layout(lengths).to("cuda")
    qkv = [torch.randn(sum(lengths), 2, 8, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    weight = torch.randn(sum(lengths), 2, 8, device="cuda")
    if not takes_edges(qkv[0]):
        pytest.skip("this GPU or this torch has no attention over sequences of any lengths")
    ours, theirs = edge_attention(*qkv, where), slab_attention(*qkv, where)
    grads = [torch.autograd.grad((x.float() * weight).sum(), qkv) for x in (ours, theirs)]
    # Numbers have 8 bits of mantissa; kernels add them up in other orders.
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(*grads, rtol=2e-2, atol=5e-2)


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
    assert (where.edge_X.tolist(), where.longest) == ([0, 2, 5], 3)
    assert (layout([]).edge_X.tolist(), layout([]).longest) == ([0], 0)
    with pytest.raises(ValueError, match="sequence 1 is empty"):
        layout([2, 0])
