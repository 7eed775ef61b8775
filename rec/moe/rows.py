"""Rows to the places of their experts and back, with gradients that gather too.

Letters: N rows, K experts per row, S = N K slots, P places grouped by expert, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rec import transfer


def summed(y_PD: Tensor, place_NK: Tensor, weight_NK: Tensor | None = None) -> Tensor:
    """Return the sum of each row's places, weighted where weights are given, (N, D)."""
    if weight_NK is not None:
        weight_NK = weight_NK.to(y_PD.dtype)
    if place_NK.shape[1] == 1:
        y_ND = y_PD.index_select(0, place_NK[:, 0])
        return y_ND if weight_NK is None else y_ND.mul_(weight_NK)
    # One pass, rounded once: for two places of a row in bfloat16 ten times as fast as a gather and a sum.
    return nn.functional.embedding_bag(place_NK, y_PD.contiguous(), mode="sum", per_sample_weights=weight_NK)


class Gather(torch.autograd.Function):
    """Rows to places; its gradient gathers too, as every slot in use has one place."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, row_P: Tensor, place_S: Tensor, used_S: Tensor | None) -> Tensor:
        """Return each place's row, (P, D)."""
        ctx.save_for_backward(place_S, used_S)
        ctx.rows = len(x_ND)
        return x_ND.index_select(0, row_P)

    @staticmethod
    def backward(ctx: Any, grad_PD: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the sum over each row's slots in use."""
        place_S, used_S = ctx.saved_tensors
        place_NK = place_S.view(ctx.rows, -1)
        if used_S is None:
            return summed(grad_PD, place_NK), None, None, None
        if transfer.host_knows(grad_PD):
            return summed(grad_PD, place_NK, used_S.view(place_NK.shape)), None, None, None
        # A device's product leaves anything in rows of no expert, and 0 times anything may be no number.
        grad_SD = grad_PD.index_select(0, place_S).masked_fill_(~used_S[:, None], 0.0)
        return grad_SD.view(*place_NK.shape, -1).sum(1), None, None, None


class Combine(torch.autograd.Function):
    """The weighted sum of each row's places; a slot that is not in use has weight 0, and any place."""

    @staticmethod
    def forward(ctx: Any, y_PD: Tensor, weight_NK: Tensor, row_P: Tensor, place_S: Tensor) -> Tensor:
        """Return the mixed rows, (N, D)."""
        ctx.save_for_backward(y_PD, weight_NK, row_P, place_S)
        return summed(y_PD, place_S.view(weight_NK.shape), weight_NK)

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Return the gradients of places, padding's are 0, and of weights."""
        y_PD, weight_NK, row_P, place_S = ctx.saved_tensors
        weight_S = weight_NK.flatten()
        weight_P = weight_S.new_zeros(len(row_P)).scatter_add_(0, place_S, weight_S)
        grad_PD = grad_ND.index_select(0, row_P)
        # One pass over both for the weights, then the rows' gradient in place.
        product_P = (grad_PD * y_PD).sum(1)
        grad_NK = product_P.index_select(0, place_S).view(weight_NK.shape).to(weight_NK.dtype)
        return grad_PD.mul_(weight_P.to(grad_ND.dtype)[:, None]), grad_NK, None, None
