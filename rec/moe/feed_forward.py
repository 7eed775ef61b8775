"""Feed-forward experts with GELU on a CPU: both layers of a segment of experts before the next segment.

What a segment's rows become between the layers is read again while it is still near the processor, and its gradient
needs memory for one segment alone.

Letters: P rows grouped by expert, D width, F hidden width, O width of outputs, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rec.moe.grouping import Segment, multiply, multiply_for_weights

gelu, gelu_backward = torch.ops.aten.gelu.out, torch.ops.aten.gelu_backward.grad_input
"""GELU and its gradient into memory that is there."""


class SegmentedFeedForward(torch.autograd.Function):
    """GELU between two products with weights of each row's expert."""

    @staticmethod
    def forward(ctx: Any, x_PD: Tensor, up_EDF: Tensor, down_EFO: Tensor, segments: Sequence[Segment]) -> Tensor:
        """Return each row's output under its expert, (P, O)."""
        hidden_PF = x_PD.new_empty(len(x_PD), up_EDF.shape[2])
        active_PF, y_PO = torch.empty_like(hidden_PF), x_PD.new_empty(len(x_PD), down_EFO.shape[2])
        for s in segments:
            multiply(s.of(x_PD), up_EDF, s.of(hidden_PF), s)
            gelu(s.of(hidden_PF), out=s.of(active_PF))
            multiply(s.of(active_PF), down_EFO, s.of(y_PO), s)
        ctx.save_for_backward(x_PD, up_EDF, down_EFO, hidden_PF, active_PF)
        ctx.segments = segments
        return y_PO

    @staticmethod
    def backward(ctx: Any, grad_PO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Return the gradients of those that need one."""
        x_PD, up_EDF, down_EFO, hidden_PF, active_PF = ctx.saved_tensors
        of_x, of_up, of_down, _ = ctx.needs_input_grad
        grad_PO = grad_PO.contiguous()
        grad_PD = torch.empty_like(x_PD) if of_x else None
        grad_EDF = torch.empty_like(up_EDF) if of_up else None
        grad_EFO = torch.empty_like(down_EFO) if of_down else None
        up_EFD, down_EOF = up_EDF.transpose(1, 2), down_EFO.transpose(1, 2)
        scratch_XF = hidden_PF.new_empty(max(s.end - s.start for s in ctx.segments), hidden_PF.shape[1])
        for s in ctx.segments:
            if grad_EFO is not None:
                multiply_for_weights(s.of(active_PF), s.of(grad_PO), grad_EFO, s)
            if grad_PD is None and grad_EDF is None:
                continue
            grad_XF = scratch_XF[: s.end - s.start]
            multiply(s.of(grad_PO), down_EOF, grad_XF, s)
            gelu_backward(grad_XF, s.of(hidden_PF), grad_input=grad_XF)
            if grad_EDF is not None:
                multiply_for_weights(s.of(x_PD), grad_XF, grad_EDF, s)
            if grad_PD is not None:
                multiply(grad_XF, up_EFD, s.of(grad_PD), s)
        return grad_PD, grad_EDF, grad_EFO, None
