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
ITEMS_PER_BLOCK = 4096
"""Items that rows are scored against at once: with 1,024 rows 16 MiB, which stay in a cache."""
SCORES_KEPT = 1 << 24
"""Scores of a chunk of rows, 64 MiB, that are kept between the two passes over items."""
FEWEST_ROWS = 128
"""Rows of a chunk below which scores are made twice rather than kept: products of fewer rows are slow."""


def full_cross_entropy(state_ND: Tensor, item_ID: Tensor, target_N: Tensor) -> Tensor:
    """Return the sum over rows of -log softmax over every item but padding at the target.

    The (N, I) matrix never exists: a chunk of rows is scored against a block of items, and its gradient computed,
    while the scores are in the cache. What is held beside the gradients grows neither with N nor with I.
    """
    loss: Tensor = _FullCrossEntropy.apply(state_ND, item_ID, target_N)
    return loss


class _FullCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, state_ND: Tensor, item_ID: Tensor, target_N: Tensor) -> Tensor:
        need = state_ND.requires_grad or item_ID.requires_grad
        grad_state = torch.empty_like(state_ND, dtype=torch.float32) if need else None
        grad_item = torch.zeros_like(item_ID, dtype=torch.float32) if need else None
        total = torch.zeros((), dtype=torch.float64, device=state_ND.device)
        kept = SCORES_KEPT // len(item_ID)
        rows = min(ROWS_PER_CHUNK, kept) if kept >= FEWEST_ROWS else ROWS_PER_CHUNK
        chunk = _Chunk(item_ID, rows, keep=need and kept >= FEWEST_ROWS)
        for start in range(0, len(state_ND), rows):
            state, target = state_ND[start : start + rows], target_N[start : start + rows]
            lse, mean = chunk.softmax(state, with_mean=need)
            total += lse.sum(dtype=torch.float64)
            total -= (state.float() * item_ID[target].float()).sum(dtype=torch.float64)
            if grad_state is not None and grad_item is not None:
                grad_state[start : start + rows] = mean - item_ID[target]
                chunk.add_to(grad_item, state, lse)
                grad_item.index_add_(0, target, state.float(), alpha=-1)
        ctx.save_for_backward(grad_state, grad_item)
        ctx.dtypes = state_ND.dtype, item_ID.dtype
        return total.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_state, grad_item = ctx.saved_tensors
        return (grad * grad_state).to(ctx.dtypes[0]), (grad * grad_item).to(ctx.dtypes[1]), None


class _Chunk:
    """A softmax over items, block by block of them, for one chunk of rows after the other.

    A block's exponentials are taken above the highest score of all blocks so far. What is missing to their share of
    the softmax is one factor per row, which the rows of the product take, so that they are never gone through again.
    """

    def __init__(self, item_ID: Tensor, rows: int, *, keep: bool) -> None:
        self.blocks, self.keep = item_ID.split(ITEMS_PER_BLOCK), keep
        held = self.blocks if keep else self.blocks[:1]
        self.memory = [torch.empty(rows * len(block), device=item_ID.device) for block in held]
        self.tops: list[Tensor] = []

    def scores(self, state_RD: Tensor, number: int) -> Tensor:
        """Return the scores of a block of items, float32 (R, W), in memory that is used again."""
        block = self.blocks[number]
        memory = self.memory[number if self.keep else 0]
        score_RW = memory[: len(state_RD) * len(block)].view(len(state_RD), len(block))
        if state_RD.dtype == torch.float32:
            torch.mm(state_RD, block.T, out=score_RW)
        else:
            score_RW.copy_(state_RD @ block.T)
        if not number:
            score_RW[:, 0] = -torch.inf
        return score_RW

    def softmax(self, state_RD: Tensor, *, with_mean: bool) -> tuple[Tensor, Tensor]:
        """Return log sum exp of the scores, (R, 1), and the mean of items under their softmax, (R, D)."""
        top = state_RD.new_full((len(state_RD), 1), -torch.inf, dtype=torch.float32)
        total, mean = torch.zeros_like(top), torch.zeros_like(state_RD, dtype=torch.float32)
        self.tops = []
        for number, block in enumerate(self.blocks):
            score = self.scores(state_RD, number)
            higher = torch.maximum(top, score.amax(1, keepdim=True))
            score.sub_(higher).exp_()
            less, top = (top - higher).exp_(), higher
            total.mul_(less).add_(score.sum(1, keepdim=True))
            self.tops.append(top)
            if with_mean:
                _add_product(mean.mul_(less), score, block)
        return top + total.log(), mean.div_(total)

    def add_to(self, grad_ID: Tensor, state_RD: Tensor, lse_R1: Tensor) -> None:
        """Add to the items' gradient what the rows' softmax gives, after `softmax` of the same rows."""
        for number, (grad, top) in enumerate(zip(grad_ID.split(ITEMS_PER_BLOCK), self.tops, strict=True)):
            if self.keep:
                size = len(state_RD) * len(grad)
                share = self.memory[number][:size].view(len(state_RD), len(grad))
            else:
                share = self.scores(state_RD, number).sub_(top).exp_()
            grad.addmm_(share.T, state_RD.float() * (top - lse_R1).exp())


def _add_product(total: Tensor, weight: Tensor, value: Tensor) -> None:
    """Add the product to a float32 total; it is computed in the type of `value`."""
    if value.dtype == torch.float32:
        total.addmm_(weight, value)
    else:
        total.add_(weight.to(value.dtype) @ value)


def chunked_sum(function: Callable[..., Tensor], *rows: Tensor, numbers: int = 1) -> Tensor:
    """Return the sum of `function` over chunks of rows, recomputing a chunk's inside in the backward pass.

    `numbers` is how many `function` makes of each row: where they are many, chunks have fewer rows.
    """
    size = max(1, min(ROWS_PER_CHUNK, SCORES_KEPT // numbers))
    parts = [
        checkpoint(function, *(r[start : start + size] for r in rows), use_reentrant=False)
        for start in range(0, len(rows[0]), size)
    ]
    return torch.stack(parts).sum()


def cross_entropy(positive_N: Tensor, negative_NC: Tensor) -> Tensor:
    """Return the sum of -log softmax over {positive, negatives} at the positive."""
    logits = torch.cat([positive_N[:, None], negative_NC], 1).float()
    return (logits.logsumexp(1) - logits[:, 0]).sum()


def sampled_softmax(
    negative_NC: Tensor, positive_N: Tensor, expected_C: Tensor, target_N: Tensor, drawn_C: Tensor
) -> Tensor:
    """Return the sum of -log softmax at the positive over it and drawn items that all rows share.

    Drawn items' scores are lowered by the log of how often each is expected among them, so that the sum of exponentials
    is that over all items in the mean; one that is a row's target counts once, as the target.

    Sources: Bengio and Senecal 2008 (importance sampling); Yi et al. 2019 (the correction for popular items).

    Args:
        negative_NC: Scores of the drawn items.
        positive_N: Scores of the targets.
        expected_C: C q, where each item is drawn with probability q.
        target_N: Each row's target.
        drawn_C: Which items were drawn.
    """
    negative_NC = negative_NC.float() - expected_C.log()
    return cross_entropy(positive_N, negative_NC.masked_fill(drawn_C == target_N[:, None], -torch.inf))


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
