"""Carrying rows to their experts and back, on one device.

Letters: N rows, K experts per row, A assignments in use (N K at most), D width, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rec.moe.experts import Experts
from rec.moe.ranks import ALONE, Ranks
from rec.moe.routing import Routing


@dataclass(frozen=True, slots=True)
class Order:
    """The assignments sorted by expert."""

    row_A: Tensor
    """Which row each assignment carries."""
    slot_A: Tensor
    """Which of the N K (row, choice) pairs it is."""
    count_E: Tensor
    """Assignments of each expert, int64."""
    dropped: int
    """Assignments that exceeded an expert's capacity, over all ranks."""

    @property
    def end_E(self) -> Tensor:
        """Where each expert's assignments end, int32."""
        return self.count_E.cumsum(0).to(torch.int32)


def order_by_expert(routing: Routing, num_experts: int, capacity: int = 0, ranks: Ranks = ALONE) -> Order:
    """Return the assignments with a weight above 0, sorted by expert and, within one, by row.

    `capacity` limits the assignments of each expert over all ranks (0 does not): of those that exceed it, the ones
    with the least weight are dropped, so what is dropped depends neither on the order of rows nor on how they are cut.
    """
    choices = routing.expert_NK.shape[1]
    expert_S, weight_S = routing.expert_NK.flatten(), routing.weight_NK.detach().flatten()
    slot_A = (weight_S > 0).nonzero()[:, 0]
    kept, dropped = len(slot_A), 0
    if capacity:
        expert_A, first = ranks.join(expert_S[slot_A])
        weight_A, _ = ranks.join(weight_S[slot_A])
        stays = _within_capacity(expert_A, weight_A, num_experts, capacity)
        slot_A = slot_A[stays[first : first + kept]]
        dropped = int((~stays).sum())
    expert_A = expert_S[slot_A]
    slot_A = slot_A[expert_A.argsort(stable=True)]
    return Order(
        slot_A.div(choices, rounding_mode="floor"),
        slot_A,
        torch.bincount(expert_A, minlength=num_experts),
        dropped,
    )


def carry(x_ND: Tensor, weight_NK: Tensor, order: Order, experts: Experts) -> Tensor:
    """Return the weighted sum of every row's experts, (N, D); an expert without rows costs nothing."""
    x_AD = x_ND.index_select(0, order.row_A)
    y_AD = experts(x_AD, order.end_E)
    weight_A = weight_NK.flatten()[order.slot_A]
    return torch.zeros_like(x_ND).index_add(0, order.row_A, y_AD * weight_A[:, None].to(y_AD.dtype))


def dispatch_dense(x_ND: Tensor, routing: Routing, experts: Experts) -> Tensor:
    """Return what `carry` does by the definition: every expert on every row, weighted by one-hot shares.

    The slow, obvious version that tests compare with.
    """
    rows = len(x_ND)
    total = torch.zeros_like(x_ND)
    share_NE = routing.dense()
    for expert in range(experts.num_experts):
        count_E = torch.zeros(experts.num_experts, dtype=torch.int32)
        count_E[expert] = rows
        total = total + share_NE[:, expert, None].to(x_ND.dtype) * experts(x_ND, count_E.cumsum(0).to(torch.int32))
    return total


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
