"""Dropout that costs little on a CPU, where torch's draws one random number at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rec import transfer


class Dropout(nn.Module):
    """Zeroes a share of the elements while training and scales the rest so that the mean stays.

    On a CPU the share is a multiple of 1/256: one random byte decides one element. The bytes come from a generator
    seeded by torch's, so `torch.manual_seed` governs them.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"dropout must be in [0, 1), got {share}")
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with elements dropped in training, `x` itself in evaluation."""
        if not self.training or self.share == 0:
            return x
        if not transfer.host_knows(x):
            return nn.functional.dropout(x, self.share)
        dropped: Tensor = _ByteDropout.apply(x, round(self.share * 256))
        return dropped


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        words = np.random.SFC64(int(torch.randint(1 << 62, ()))).random_raw(-(-x.numel() // 8))
        keep = torch.from_numpy(words.view(np.uint8)[: x.numel()]).ge(threshold)
        # A mask of the inputs' own type: multiplying by booleans costs forty times as much on a CPU.
        scale = keep.view(x.shape).to(x.dtype).mul_(256 / (256 - threshold))
        ctx.save_for_backward(scale)
        return x * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        return grad * scale, None
