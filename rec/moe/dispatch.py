"""Carrying rows to their experts and back, on one device.

Letters: N rows, K experts per row, S = N K slots, A slots in use, P places grouped by expert with some padding, D
width, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rec import transfer
from rec.moe.experts import Experts
from rec.moe.grouping import Grouping, group, sizes_stay
from rec.moe.ranks import ALONE, BatchRanks
from rec.moe.routing import Routing
from rec.moe.rows import Combine, Gather


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


Places = tuple[Tensor, Tensor, Tensor | None]
"""Each place's row (P,), each slot's place (S,), and whether a slot is in use (S,) unless all are."""


def order_by_expert(
    routing: Routing, num_experts: int, capacity: int = 0, ranks: BatchRanks = ALONE, counting: bool = True
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
    if not capacity and len(weight_S) and weight_S.float().numpy().min() > 0:
        return _order_of(None, expert_S, num_experts, choices, 0)
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
    return _order_of(slot_A, expert_S[slot_A], num_experts, choices, dropped)


def _order_of(slot_A: Tensor | None, expert_A: Tensor, num_experts: int, choices: int, dropped: int) -> Order:
    """Return the order of pairs of row and choice, all of them if none are named, given the expert of each."""
    by_expert_A = stable_order(expert_A, num_experts)
    slot_A = by_expert_A if slot_A is None else slot_A.index_select(0, by_expert_A)
    row_A = slot_A if choices == 1 else slot_A.div(choices, rounding_mode="floor")
    if not transfer.host_knows(expert_A):
        count_E = torch.bincount(expert_A, minlength=num_experts)
        return Order(row_A, slot_A, expert_A.index_select(0, by_expert_A), count_E, dropped)
    count = np.bincount(expert_A.numpy(), minlength=num_experts)
    sorted_A = torch.from_numpy(np.arange(num_experts).repeat(count))
    return Order(row_A, slot_A, sorted_A, torch.from_numpy(count), dropped, count.tolist())


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
        return order if order.counts is not None else replace(order, counts=counts)
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
    if stays:
        grouping = Grouping(order.count_E, None)
        row_P, place_S, used_S = _places_of_all(order, weight_NK.numel())
    else:
        grouping = group(order.count_E, experts.call_rows, order.counts)
        find = _places_on_host if transfer.host_knows(order.row_A) else _places
        row_P, place_S, used_S = find(order, grouping, weight_NK.numel())
    x_PD = Gather.apply(x_ND, row_P, place_S, used_S)
    y_PD = experts(x_PD, grouping)
    if used_S is not None:
        weight_NK = weight_NK * used_S.view(weight_NK.shape)
    y_ND: Tensor = Combine.apply(y_PD, weight_NK, row_P, place_S)
    return y_ND


def _places_of_all(order: Order, slots: int) -> Places:
    """Return the places without padding, where the host does not know which of the order's pairs are assignments."""
    used_A = order.expert_A < len(order.count_E)
    place_A = torch.where(used_A, torch.arange(len(used_A), device=used_A.device), 0)
    place_S, used_S = place_A.new_zeros(slots), used_A.new_zeros(slots)
    return order.row_A, place_S.scatter_(0, order.slot_A, place_A), used_S.scatter_(0, order.slot_A, used_A)


def _places(order: Order, grouping: Grouping, slots: int) -> Places:
    """Return the places of assignments in segments."""
    row_P, place_A = order.row_A, torch.arange(len(order.row_A), device=order.row_A.device)
    if (places := grouping.total(len(place_A))) > len(place_A):
        place_A += (grouping.start_E - (order.count_E.cumsum(0) - order.count_E))[order.expert_A]
        row_P = row_P.new_zeros(places).scatter_(0, place_A, row_P)
    place_S = place_A.new_zeros(slots).scatter_(0, order.slot_A, place_A)
    if len(place_A) == slots:
        return row_P, place_S, None
    return row_P, place_S, torch.zeros_like(place_S, dtype=torch.bool).index_fill_(0, order.slot_A, True)


def _places_on_host(order: Order, grouping: Grouping, slots: int) -> Places:
    """Return what `_places` does by numpy, whose calls take half as long: much of what few rows take."""
    row, slot, place = order.row_A.numpy(), order.slot_A.numpy(), np.arange(len(order.row_A))
    row_P = order.row_A
    if (places := grouping.total(len(place))) > len(place):
        count = order.count_E.numpy()
        place += (grouping.starts() - (count.cumsum() - count)).repeat(count)
        row_P = row_P.new_zeros(places)
        row_P.numpy()[place] = row
    place_S = np.zeros(slots, dtype=np.int64)
    place_S[slot] = place
    used_S = None
    if len(place) < slots:
        used_S = np.zeros(slots, dtype=np.bool_)
        used_S[slot] = True
    return row_P, torch.from_numpy(place_S), None if used_S is None else torch.from_numpy(used_S)


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
