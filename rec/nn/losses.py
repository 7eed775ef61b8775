"""Next-item losses, each as a sum over rows.

Letters: N rows, I items with padding as item 0, C candidates, D width.
Sources: Klenitskiy and Vasilev 2023 (arXiv 2309.07602) for cross-entropy over few or all items; Petrov and Macdonald
2023 (gSASRec) for gBCE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

ROWS_PER_CHUNK = 1024


def full_cross_entropy(state_ND: Tensor, item_ID: Tensor, target_N: Tensor) -> Tensor:
    """Return the sum over rows of -log softmax over every item but padding at the target.

    The (N, I) matrix never exists as a whole: a chunk of rows is scored, and its gradient computed, while its scores
    are in the cache.
    """
    loss: Tensor = _FullCrossEntropy.apply(state_ND, item_ID, target_N)
    return loss


class _FullCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, state_ND: Tensor, item_ID: Tensor, target_N: Tensor) -> Tensor:
        need = state_ND.requires_grad or item_ID.requires_grad
        grad_state = torch.empty_like(state_ND) if need else None
        grad_item = torch.zeros_like(item_ID, dtype=torch.float32) if need else None
        total = torch.zeros((), dtype=torch.float64, device=state_ND.device)
        for start in range(0, len(state_ND), ROWS_PER_CHUNK):
            state, target = state_ND[start : start + ROWS_PER_CHUNK], target_N[start : start + ROWS_PER_CHUNK]
            logit = (state @ item_ID.T).float()
            logit[:, 0] = -torch.inf
            lse = logit.logsumexp(1, keepdim=True)
            total += (lse - logit.gather(1, target[:, None])).sum(dtype=torch.float64)
            if grad_state is not None and grad_item is not None:
                delta = logit.sub_(lse).exp_()
                delta[torch.arange(len(target), device=target.device), target] -= 1
                delta = delta.to(state.dtype)
                grad_state[start : start + ROWS_PER_CHUNK] = delta @ item_ID
                grad_item.addmm_(delta.T.float(), state.float())
        ctx.save_for_backward(grad_state, grad_item)
        ctx.item_dtype = item_ID.dtype
        return total.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_state, grad_item = ctx.saved_tensors
        return grad * grad_state, (grad * grad_item).to(ctx.item_dtype), None


def chunked_sum(function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """Return the sum of `function` over chunks of rows, recomputing a chunk's inside in the backward pass."""
    parts = [
        checkpoint(function, *(r[start : start + ROWS_PER_CHUNK] for r in rows), use_reentrant=False)
        for start in range(0, len(rows[0]), ROWS_PER_CHUNK)
    ]
    return torch.stack(parts).sum()


def cross_entropy(positive_N: Tensor, negative_NC: Tensor) -> Tensor:
    """Return the sum of -log softmax over {positive, negatives} at the positive."""
    logits = torch.cat([positive_N[:, None], negative_NC], 1).float()
    return (logits.logsumexp(1) - logits[:, 0]).sum()


def binary_cross_entropy(positive_N: Tensor, negative_NC: Tensor) -> Tensor:
    """Return the sum of -log sigmoid(positive) and -log(1 - sigmoid(negative)), negatives averaged over C."""
    positive = softplus(-positive_N.float()).sum()
    negative = softplus(negative_NC.float()).mean(1).sum()
    return positive + negative


def gbce(positive_N: Tensor, negative_NC: Tensor, num_items: int, calibration: float) -> Tensor:
    """Return the sum of the generalised binary cross-entropy, 1 / (C + 1) of both parts.

    `calibration` is t: 0 is the plain form, 1 gives calibrated probabilities. The positive's part is
    -beta log sigmoid(s): the published detour over a transformed score in float64 equals it and is not needed.
    """
    count = negative_NC.shape[1]
    alpha = count / (num_items - 1)
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    positive = beta * softplus(-positive_N.float()).sum()
    negative = softplus(negative_NC.float()).sum()
    return (positive + negative) / (count + 1)


def gbce_transformed(positive_N: Tensor, beta: float) -> Tensor:
    """Return the published transformed positive score log(1 / (sigmoid(s)^-beta - 1)), in float64."""
    exponent = beta * softplus(-positive_N.double())
    return -torch.log(torch.expm1(exponent))
