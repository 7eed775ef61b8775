"""Sequences of different lengths without padding: one row per element, sequences one after the other.

Letters: B sequences, X = B + 1 edges between them, N rows in all, S slots (rows and the little padding attention
needs), L positions, H heads, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rec.transfer import sent

SLACK = 0.06
"""Largest share of slots in a slab that hold no row: a slab takes in shorter sequences up to this."""
HALF = (torch.float16, torch.bfloat16)
WIDEST, MULTIPLE = 256, 8
"""Widths of a head that torch's attention over sequences of any lengths takes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where B sequences lie in N rows, and how attention groups them into slabs of about equal length.

    Slots order the sequences by length; each slab is a stretch of slots seen as (sequences, positions). Sequences
    start at a slab's first position, so a causal mask alone keeps rows from seeing the empty slots behind them.
    """

    length_B: Tensor
    start_B: Tensor
    edge_X: Tensor
    """First row of each sequence, and N: int32, as torch's attention over sequences of any lengths is told them."""
    sequence_N: Tensor
    """Which sequence a row belongs to."""
    position_N: Tensor
    """How many rows of the same sequence come before."""
    slot_N: Tensor
    row_S: Tensor
    empty: Tensor
    """The slots that hold no row."""
    slabs: tuple[tuple[int, int, int], ...]
    """(first slot, sequences, positions) of each slab."""
    order_B: Tensor
    """Sequences in the order of the slabs."""

    @property
    def longest(self) -> int:
        """Length of the longest sequence, 0 where there is none."""
        return self.slabs[0][2] if self.slabs else 0

    @property
    def last_B(self) -> Tensor:
        """Row of each sequence's last element."""
        return self.start_B + self.length_B - 1

    def to(self, device: torch.device | str) -> Layout:
        """Return this layout with its tensors on `device`."""
        names = ("length_B", "start_B", "edge_X", "sequence_N", "position_N", "slot_N", "row_S", "empty", "order_B")
        return Layout(**{name: sent(getattr(self, name), device) for name in names}, slabs=self.slabs)


def layout(lengths: Sequence[int] | np.ndarray) -> Layout:
    """Return the layout of sequences of these lengths, each at least 1."""
    length = np.asarray(lengths, dtype=np.int64)
    if len(length) and length.min() < 1:
        raise ValueError(f"sequence {int(length.argmin())} is empty")
    start = np.cumsum(length) - length
    total = int(length.sum())
    sequence, every = np.repeat(np.arange(len(length)), length), np.arange(total)
    position = every - np.repeat(start, length)
    order = np.argsort(-length, kind="stable")
    slabs, first_slot = _slabs(length[order])
    base = np.empty(len(length), dtype=np.int64)
    base[order] = first_slot
    slot = every + np.repeat(base - start, length)
    slots = slabs[-1][0] + slabs[-1][1] * slabs[-1][2] if slabs else 0
    row = np.zeros(slots, dtype=np.int64)
    row[slot] = every
    longest = np.repeat([longest for *_, longest in slabs], [count for _, count, _ in slabs])
    missing = longest.astype(np.int64) - length[order]
    before = np.cumsum(missing) - missing
    empty_slot = np.arange(slots - total) + np.repeat(first_slot + length[order] - before, missing)
    edge = np.append(start, total).astype(np.int32)
    length_B, start_B, edge_X, sequence_N, position_N, slot_N, row_S, empty, order_B = (
        torch.from_numpy(a) for a in (length, start, edge, sequence, position, slot, row, empty_slot, order)
    )
    return Layout(length_B, start_B, edge_X, sequence_N, position_N, slot_N, row_S, empty, tuple(slabs), order_B)


def _slabs(descending: np.ndarray) -> tuple[list[tuple[int, int, int]], np.ndarray]:
    """Return the slabs for lengths in falling order, and each sequence's first slot."""
    slabs: list[tuple[int, int, int]] = []
    first_slot = np.zeros(len(descending), dtype=np.int64)
    start, slot = 0, 0
    while start < len(descending):
        longest = int(descending[start])
        rest = descending[start:]
        padding = np.cumsum(longest - rest)
        fits = padding <= SLACK * longest * np.arange(1, len(rest) + 1)
        # The run of sequences up to the first that does not fit.
        count = len(rest) if fits.all() else int(fits.argmin())
        slabs.append((slot, count, longest))
        first_slot[start : start + count] = slot + longest * np.arange(count)
        start, slot = start + count, slot + count * longest
    return slabs, first_slot


def causal_attention(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, where: Layout) -> Tensor:
    """Return each row's attention over the rows of its own sequence up to itself, (N, H, D)."""
    attention = edge_attention if takes_edges(q_NHD) else slab_attention
    return attention(q_NHD, k_NHD, v_NHD, where)


def takes_edges(q_NHD: Tensor) -> bool:
    """Return whether torch has attention over sequences of any lengths for such rows.

    It has on GPUs from Ampere on, in half precision, since 2.10.
    """
    width = q_NHD.shape[2]
    if not q_NHD.is_cuda or q_NHD.dtype not in HALF or width > WIDEST or width % MULTIPLE or not len(q_NHD):
        return False
    new_enough = torch.cuda.get_device_capability(q_NHD.device) >= (8, 0)
    return new_enough and torch.backends.cuda.is_flash_attention_available() and _varlen_attn() is not None


def _varlen_attn() -> Callable[..., Any] | None:
    """Return torch's attention over sequences of any lengths; it takes long to import, so where it is used alone."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


def edge_attention(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, where: Layout) -> Tensor:
    """Return what `causal_attention` does by one call for all sequences, where `takes_edges` says so."""
    attention = _varlen_attn()
    assert attention is not None
    edges, longest = where.edge_X, where.longest
    # A window of (-1, 0) sees all rows before a row and none after it.
    mixed_NHD: Tensor = attention(q_NHD, k_NHD, v_NHD, edges, edges, longest, longest, window_size=(-1, 0))
    return mixed_NHD


def slab_attention(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, where: Layout) -> Tensor:
    """Return what `causal_attention` does by one call for each slab, on any device in any precision."""

    def attended(*qkv: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in qkv)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    return by_slabs(attended, where, q_NHD, k_NHD, v_NHD)


def by_slabs(work: Callable[..., Tensor], where: Layout, *rows: Tensor) -> Tensor:
    """Return what is made of the rows of each slab, (sequences, positions, ...) each, as rows (N, ...)."""
    sizes = [count * longest for _, count, longest in where.slabs]
    # Split, not sliced: the backward pass of a slice fills a whole tensor with zeros.
    pieces = [to_slots(x, where).split(sizes) for x in rows]
    parts = []
    for (_, count, longest), *slab in zip(where.slabs, *pieces, strict=True):
        made = work(*(x.view(count, longest, *x.shape[1:]) for x in slab))
        parts.append(made.reshape(count * longest, *made.shape[2:]))
    return from_slots(torch.cat(parts), where)


def causal_mean(x_ND: Tensor, where: Layout) -> Tensor:
    """Return the mean of each row and the rows of its sequence before it, (N, D)."""
    mean: Tensor = _CausalMean.apply(x_ND, where)
    return mean


def sequence_scores(state_ND: Tensor, candidate_BCD: Tensor, where: Layout) -> Tensor:
    """Return each row's inner product with every candidate of its own sequence, (N, C)."""
    states = to_slots(state_ND, where).split([count * longest for _, count, longest in where.slabs])
    candidates = candidate_BCD[where.order_B].split([count for _, count, _ in where.slabs])
    parts = []
    for (_, count, longest), state, candidate in zip(where.slabs, states, candidates, strict=True):
        scores = state.view(count, longest, -1) @ candidate.transpose(1, 2)
        parts.append(scores.view(count * longest, -1))
    return from_slots(torch.cat(parts), where)


def to_slots(x: Tensor, where: Layout) -> Tensor:
    """Return rows (N, ...) as slots (S, ...); what an empty slot holds is arbitrary and gets no gradient."""
    slots: Tensor = _ToSlots.apply(x, where)
    return slots


def from_slots(x: Tensor, where: Layout) -> Tensor:
    """Return slots (S, ...) as rows (N, ...)."""
    rows: Tensor = _FromSlots.apply(x, where)
    return rows


class _ToSlots(torch.autograd.Function):
    """Both directions are gathers: a row has exactly one slot."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, where: Layout) -> Tensor:
        ctx.where = where
        return x.index_select(0, where.row_S)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.index_select(0, ctx.where.slot_N), None


class _FromSlots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, where: Layout) -> Tensor:
        ctx.where = where
        return x.index_select(0, where.slot_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        slots = grad.index_select(0, ctx.where.row_S)
        return slots.index_fill_(0, ctx.where.empty, 0), None


class _CausalMean(torch.autograd.Function):
    """Running sums in float64: differences of long sums would lose digits in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, where: Layout) -> Tensor:
        ctx.where = where
        count_N1 = (where.position_N + 1)[:, None]
        return (_sums(x, where) / count_N1).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        where = ctx.where
        share = grad / (where.position_N + 1)[:, None]
        upto = _sums(share, where)
        whole = upto.index_select(0, where.last_B).index_select(0, where.sequence_N)
        return (whole - upto + share).to(grad.dtype), None


def _sums(x_ND: Tensor, where: Layout) -> Tensor:
    """Return the sums of each row and the rows of its sequence before it, (N, D) float64."""
    running = x_ND.cumsum(0, dtype=torch.float64)
    before = (running - x_ND).index_select(0, where.start_B).index_select(0, where.sequence_N)
    return running - before
