"""Carrying rows to their experts and back, on one device.

Letters: N rows, K experts per row, S = N K slots, A slots in use, P places grouped by expert with some padding, D
width, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec import transfer
from rec.moe.experts import Experts
from rec.moe.grouping import Grouping, group, sizes_stay
from rec.moe.ranks import ALONE, Ranks
from rec.moe.routing import Routing


@dataclass(frozen=True, slots=True)
class Order:
    """The assignments of rows to experts, sorted by expert and, within one, by row.

    Where the host does not know how many there are, A is all N K pairs: those that are no assignments come last, with
    expert E.
    """

    row_A: Tensor
    """Which row each assignment carries."""
    slot_A: Tensor
    """Which of the N K (row, choice) pairs it is."""
    expert_A: Tensor
    count_E: Tensor
    """Assignments of each expert, int64."""
    dropped: int
    """Assignments that exceeded an expert's capacity, over all ranks."""
    counts: Sequence[int] | None = None
    """`count_E` where the host knows it."""


def order_by_expert(
    routing: Routing, num_experts: int, capacity: int = 0, ranks: Ranks = ALONE, counting: bool = True
) -> Order:
    """Return the assignments with a weight above 0.

    `capacity` limits the assignments of each expert over all ranks (0 does not): of those that exceed it, the ones
    with the least weight are dropped, so what is dropped depends neither on the order of rows nor on how they are cut.
    Without `counting` this rank's rows take no room and lose none.
    """
    choices = routing.expert_NK.shape[1]
    expert_S, weight_S = routing.expert_NK.flatten(), routing.weight_NK.detach().flatten()
    if not capacity and not transfer.host_knows(expert_S):
        return _order_of_all(torch.where(weight_S > 0, expert_S, num_experts), num_experts, choices)
    slot_A = (weight_S > 0).nonzero()[:, 0]
    kept, dropped = len(slot_A), 0
    if capacity:
        asking_A = slot_A if counting else slot_A[:0]
        expert_A, first = ranks.join(expert_S[asking_A])
        weight_A, _ = ranks.join(weight_S[asking_A])
        stays = _within_capacity(expert_A, weight_A, num_experts, capacity)
        if counting:
            slot_A = slot_A[stays[first : first + kept]]
        dropped = int((~stays).sum())
    slot_A = slot_A[stable_order(expert_S[slot_A], num_experts)]
    expert_A = expert_S[slot_A]
    count_E = torch.bincount(expert_A, minlength=num_experts)
    return Order(slot_A.div(choices, rounding_mode="floor"), slot_A, expert_A, count_E, dropped)


def _order_of_all(expert_S: Tensor, num_experts: int, choices: int) -> Order:
    """Return the order of all pairs of row and choice, of which those of expert E are none."""
    slot_S = stable_order(expert_S, num_experts)
    count_E = expert_S.new_zeros(num_experts + 1).scatter_add_(0, expert_S, torch.ones_like(expert_S))[:num_experts]
    return Order(slot_S.div(choices, rounding_mode="floor"), slot_S, expert_S[slot_S], count_E, 0)


def sized(order: Order) -> Order:
    """Return an order whose size the host knows, without what is no assignment."""
    counts: Sequence[int] = order.count_E.tolist() if order.counts is None else order.counts
    used = sum(counts)
    if used == len(order.row_A):
        return replace(order, counts=counts)
    return Order(order.row_A[:used], order.slot_A[:used], order.expert_A[:used], order.count_E, order.dropped, counts)


def carry(x_ND: Tensor, weight_NK: Tensor, order: Order, experts: Experts) -> Tensor:
    """Return the weighted sum of every row's experts, (N, D); an expert without rows costs nothing."""
    stays = sizes_stay(order.count_E, x_ND.dtype) and not experts.sized
    if not stays or order.counts is not None:
        order = sized(order)
    if len(order.row_A) == 0:
        # Nothing to do, but gradients of nothing are zeros, on this worker as on others.
        empty = experts(x_ND[:0], group(order.count_E, 0, [0] * len(order.count_E)))
        nothing = x_ND.sum() * 0 + empty.sum() + weight_NK.sum() * 0
        return nothing + empty.new_zeros(len(x_ND), empty.shape[1])
    place_S = torch.zeros_like(weight_NK, dtype=torch.int64).flatten()
    used_S = None
    if stays:
        grouping = Grouping(order.count_E, None)
        used_A = order.expert_A < len(order.count_E)
        row_P, slot_P = order.row_A, torch.where(used_A, order.slot_A, -1)
        place_A = torch.where(used_A, torch.arange(len(row_P), device=x_ND.device), 0)
        place_S[order.slot_A] = place_A
        used_S = torch.zeros_like(place_S, dtype=torch.bool).scatter_(0, order.slot_A, used_A)
    else:
        grouping = group(order.count_E, experts.call_rows, order.counts)
        place_A = grouping.start_E[order.expert_A] + torch.arange(len(order.row_A), device=x_ND.device)
        place_A -= (order.count_E.cumsum(0) - order.count_E)[order.expert_A]
        row_P = order.row_A.new_zeros(grouping.total(len(place_A)))
        slot_P = torch.full_like(row_P, -1)
        row_P[place_A], slot_P[place_A] = order.row_A, order.slot_A
        place_S[order.slot_A] = place_A
        if len(place_A) < len(place_S):
            used_S = torch.zeros_like(place_S, dtype=torch.bool)
            used_S[order.slot_A] = True
    x_PD = _Gather.apply(x_ND, row_P, place_S, used_S)
    y_PD = experts(x_PD, grouping)
    if used_S is not None:
        weight_NK = weight_NK * used_S.view(weight_NK.shape)
    y_ND: Tensor = _Combine.apply(y_PD, weight_NK, row_P, slot_P, place_S)
    return y_ND


def dispatch_dense(x_ND: Tensor, routing: Routing, experts: Experts) -> Tensor:
    """Return what `carry` does by the definition: every expert on every row, weighted by one-hot shares.

    The slow, obvious version that tests compare with.
    """
    total: Tensor | float = 0.0
    share_NE = routing.dense()
    for expert in range(experts.num_experts):
        count_E = torch.zeros(experts.num_experts, dtype=torch.int64)
        count_E[expert] = len(x_ND)
        total = total + share_NE[:, expert, None].to(x_ND.dtype) * experts(x_ND, Grouping(count_E, None))
    assert isinstance(total, Tensor)
    return total


class _Gather(torch.autograd.Function):
    """Rows to places; its gradient gathers too, as every slot in use has one place."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, row_P: Tensor, place_S: Tensor, used_S: Tensor | None) -> Tensor:
        ctx.save_for_backward(place_S, used_S)
        ctx.rows = len(x_ND)
        return x_ND.index_select(0, row_P)

    @staticmethod
    def backward(ctx: Any, grad_PD: Tensor) -> tuple[Tensor, None, None, None]:
        place_S, used_S = ctx.saved_tensors
        grad_SD = grad_PD.index_select(0, place_S)
        if used_S is not None:
            grad_SD.masked_fill_(~used_S[:, None], 0.0)
        if ctx.rows == len(place_S):
            return grad_SD, None, None, None
        return grad_SD.view(ctx.rows, -1, grad_SD.shape[1]).sum(1), None, None, None


class _Combine(torch.autograd.Function):
    """The weighted sum of each row's places; padding has no weight."""

    @staticmethod
    def forward(ctx: Any, y_PD: Tensor, weight_NK: Tensor, row_P: Tensor, slot_P: Tensor, place_S: Tensor) -> Tensor:
        ctx.save_for_backward(y_PD, weight_NK, row_P, slot_P, place_S)
        weight_NK = weight_NK.to(y_PD.dtype)
        place_NK = place_S.view(weight_NK.shape)
        out_ND = y_PD.index_select(0, place_NK[:, 0]).mul_(weight_NK[:, 0, None])
        for k in range(1, weight_NK.shape[1]):
            out_ND.addcmul_(y_PD.index_select(0, place_NK[:, k]), weight_NK[:, k, None])
        return out_ND

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        y_PD, weight_NK, row_P, slot_P, place_S = ctx.saved_tensors
        weight_P = weight_NK.flatten()[slot_P].masked_fill(slot_P < 0, 0.0).to(grad_ND.dtype)
        grad_PD = grad_ND.index_select(0, row_P)
        # One pass over both for the weights, then the rows' gradient in place.
        product_P = (grad_PD * y_PD).sum(1, dtype=torch.float32)
        grad_NK = product_P[place_S].view(weight_NK.shape).to(weight_NK.dtype)
        return grad_PD.mul_(weight_P[:, None]), grad_NK, None, None, None


def stable_order(expert_A: Tensor, num_experts: int) -> Tensor:
    """Return the order that sorts by expert and keeps the order within one."""
    if not transfer.host_knows(expert_A):
        return expert_A.argsort(stable=True)
    # Radix sort of narrow numbers: ten times as fast as torch's.
    narrow = expert_A.numpy().astype(np.uint8 if num_experts <= 256 else np.uint16)
    return torch.from_numpy(narrow.argsort(kind="stable"))


def _within_capacity(expert_A: Tensor, weight_A: Tensor, num_experts: int, capacity: int) -> Tensor:
    """Return which assignments stay: the `capacity` heaviest of each expert."""
    by_weight = weight_A.argsort(descending=True, stable=True)
    order = by_weight[expert_A[by_weight].argsort(stable=True)]
    count_E = torch.bincount(expert_A, minlength=num_experts)
    first_E = count_E.cumsum(0) - count_E
    place = torch.arange(len(order), device=order.device) - first_E[expert_A[order]]
    stays = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    stays[order] = place < capacity
    return stays
