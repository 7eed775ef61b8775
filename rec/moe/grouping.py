"""Rows grouped by expert, and products with one weight matrix per expert.

On a CPU a product per expert is slow where experts have few rows: what is paid is the call, not the arithmetic. So
neighbouring experts with about as many rows share one batched product, with every expert padded to the fullest of its
segment; a padding row costs less than a call. On another device the library's grouped product runs on rows without
padding, in bfloat16, and the host never learns how many each expert has; in float32, for which the library would ask
for them in each product, the host reads them once.

Letters: P rows grouped by expert, padding included, X those of a segment, D and F widths, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rec import transfer

CALL_MULTIPLY_ADDS, LEAST_CALL_ROWS = 1 << 21, 32
"""What a call costs beyond its arithmetic, in multiply-adds, and in rows at least (measured on 2 cores)."""
ALIGNED = 8
"""The library's grouped product takes widths that are multiples of 16 bytes."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring experts with the same number of rows, padding included."""

    first: int
    experts: int
    start: int
    rows: int
    """Of each expert."""

    @property
    def end(self) -> int:
        """Return the row after its last."""
        return self.start + self.experts * self.rows

    def of(self, x_PD: Tensor) -> Tensor:
        """Return its X rows of all."""
        return x_PD[self.start : self.end]


@dataclass(frozen=True)
class Grouping:
    """Where each expert's rows lie among P rows."""

    count_E: Tensor
    """Rows of each expert without padding, int64."""
    segments: tuple[Segment, ...] | None
    """None: no padding, and nothing about the sizes is known on this side of the device."""

    @cached_property
    def end_E(self) -> Tensor:
        """Return where each expert's rows end where there is no padding, int32."""
        return self.count_E.cumsum(0).to(torch.int32)

    @cached_property
    def start_E(self) -> Tensor:
        """Return each expert's first row, int64."""
        if self.segments is None:
            return self.count_E.cumsum(0) - self.count_E
        return transfer.to_device(self.starts(), torch.int64, self.count_E.device)

    def starts(self) -> list[int]:
        """Return each expert's first row where the host knows it."""
        assert self.segments is not None
        return [s.start + e * s.rows for s in self.segments for e in range(s.experts)]

    def total(self, assignments: int) -> int:
        """Return P for so many assignments."""
        return assignments if self.segments is None else self.segments[-1].end

    def split(self, x_PD: Tensor) -> list[Tensor]:
        """Return every expert's rows, padding included."""
        if self.segments is None:
            return list(x_PD.split(self.count_E.tolist()))
        return list(x_PD.split([s.rows for s in self.segments for _ in range(s.experts)]))


def sizes_stay(count_E: Tensor, dtype: torch.dtype) -> bool:
    """Return whether products of this type are made without the host's knowing these numbers of rows."""
    return dtype == torch.bfloat16 and not transfer.host_knows(count_E)


def group(count_E: Tensor, call_rows: int, counts: Sequence[int] | None = None) -> Grouping:
    """Return a grouping for these numbers of rows; a product's call costs as much as `call_rows` rows of it.

    `counts` are the same numbers where the host knows them already.
    """
    segments: list[Segment] = []
    first = start = most = length = 0
    for expert, count in enumerate(count_E.tolist() if counts is None else counts):
        tallest = max(most, count)
        if length and (length + 1) * tallest - length * most - count > call_rows:
            segments.append(Segment(first, length, start, most))
            first, start, most, length = expert, start + length * most, count, 1
        else:
            most, length = tallest, length + 1
    segments.append(Segment(first, length, start, most))
    return Grouping(count_E, tuple(segments))


def rows_per_call(weight_EDF: Tensor) -> int:
    """Return how many rows cost as much as one more call with these weights."""
    return max(LEAST_CALL_ROWS, CALL_MULTIPLY_ADDS // (weight_EDF.shape[1] * weight_EDF.shape[2]))


def grouped_product(x_PD: Tensor, weight_EDF: Tensor, grouping: Grouping) -> Tensor:
    """Return x_p @ weight[expert of p] for rows grouped by expert, (P, F)."""
    weight_EDF = weight_EDF.to(x_PD.dtype)
    if grouping.segments is None:
        _, width, hidden = weight_EDF.shape
        if width % ALIGNED or hidden % ALIGNED:
            more_D, more_F = -width % ALIGNED, -hidden % ALIGNED
            x_PD = nn.functional.pad(x_PD, (0, more_D))
            weight_EDF = nn.functional.pad(weight_EDF, (0, more_F, 0, more_D))
        product: Tensor = _LibraryProduct.apply(x_PD, weight_EDF, grouping)
        return product[:, :hidden]
    product = _SegmentedProduct.apply(x_PD, weight_EDF, grouping.segments)
    return product


class _LibraryProduct(torch.autograd.Function):
    """The library's grouped product; rows beyond the last expert's are of no expert, and may come out as anything.

    It is not called without rows, and an expert without any gets a gradient of zeros: some devices' kernels fail at the
    one and leave memory as it was at the other (pytorch#172439).
    """

    @staticmethod
    def forward(ctx: Any, x_PD: Tensor, weight_EDF: Tensor, grouping: Grouping) -> Tensor:
        ctx.save_for_backward(x_PD, weight_EDF)
        ctx.grouping = grouping
        if len(x_PD) == 0:
            return x_PD.new_zeros(0, weight_EDF.shape[2])
        y_PF: Tensor = nn.functional.grouped_mm(x_PD, weight_EDF, offs=grouping.end_E)
        # What is of no expert is looked up as the first row, with weight 0.
        y_PF[:1].masked_fill_(grouping.end_E[-1] == 0, 0.0)
        return y_PF

    @staticmethod
    def backward(ctx: Any, grad_PF: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_PD, weight_EDF = ctx.saved_tensors
        grad_PD = grad_EDF = None
        if len(x_PD) == 0:
            return torch.zeros_like(x_PD), torch.zeros_like(weight_EDF), None
        grad_PF, end_E = grad_PF.contiguous(), ctx.grouping.end_E
        if ctx.needs_input_grad[0]:
            grad_PD = nn.functional.grouped_mm(grad_PF, weight_EDF.transpose(1, 2), offs=end_E)
        if ctx.needs_input_grad[1]:
            grad_EDF = nn.functional.grouped_mm(x_PD.T, grad_PF, offs=end_E)
            grad_EDF = grad_EDF.masked_fill((ctx.grouping.count_E == 0)[:, None, None], 0.0)
        return grad_PD, grad_EDF, None


class _SegmentedProduct(torch.autograd.Function):
    """One batched product per segment; gradients are written where they belong, without a copy per segment."""

    @staticmethod
    def forward(ctx: Any, x_PD: Tensor, weight_EDF: Tensor, segments: Sequence[Segment]) -> Tensor:
        ctx.save_for_backward(x_PD, weight_EDF)
        ctx.segments = segments
        y_PF = x_PD.new_empty(len(x_PD), weight_EDF.shape[2])
        for s in segments:
            multiply(s.of(x_PD), weight_EDF, s.of(y_PF), s)
        return y_PF

    @staticmethod
    def backward(ctx: Any, grad_PF: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_PD, weight_EDF = ctx.saved_tensors
        grad_PF = grad_PF.contiguous()
        grad_PD = grad_EDF = None
        if ctx.needs_input_grad[0]:
            grad_PD, weight_EFD = torch.empty_like(x_PD), weight_EDF.transpose(1, 2)
            for s in ctx.segments:
                multiply(s.of(grad_PF), weight_EFD, s.of(grad_PD), s)
        if ctx.needs_input_grad[1]:
            grad_EDF = torch.empty_like(weight_EDF)
            for s in ctx.segments:
                multiply_for_weights(s.of(x_PD), s.of(grad_PF), grad_EDF, s)
        return grad_PD, grad_EDF, None


def multiply(rows_XD: Tensor, weight_EDF: Tensor, out_XF: Tensor, s: Segment) -> None:
    """Write the products of a segment's X rows with its experts' weights."""
    if s.rows == 0:
        return
    if s.experts == 1:
        torch.mm(rows_XD, weight_EDF[s.first], out=out_XF)
    else:
        shape = (s.experts, s.rows, -1)
        torch.bmm(rows_XD.view(shape), weight_EDF[s.first : s.first + s.experts], out=out_XF.view(shape))


def multiply_for_weights(rows_XD: Tensor, grad_XF: Tensor, out_EDF: Tensor, s: Segment) -> None:
    """Write the gradients of a segment's experts' weights, given its X rows and the gradients of their products."""
    out = out_EDF[s.first : s.first + s.experts]
    if s.rows == 0:
        out.zero_()
    elif s.experts == 1:
        torch.mm(rows_XD.T, grad_XF, out=out[0])
    else:
        shape = (s.experts, s.rows, -1)
        torch.bmm(rows_XD.view(shape).transpose(1, 2), grad_XF.view(shape), out=out)
