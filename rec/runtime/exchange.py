"""Expert-parallel dispatch: a row crosses once to each rank that holds an expert of it, and nothing is padded.

Rank p of P holds the experts [p L, (p + 1) L). A row that two experts of one rank want is sent there once, and their
weighted sum comes back as one row, so what crosses is what must.

Letters: N rows of this rank, K experts per row, A assignments of this rank, S rows it sends, R rows it receives, Q =
P N pairs of rank and row, D width, P ranks, L experts of this rank, E = P L.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from rec.moe.dispatch import Order, carry, order_by_expert
from rec.moe.experts import Experts
from rec.moe.ranks import Later, Waiting
from rec.moe.routing import Routing
from rec.runtime.messages import Link, MessageSizes, Parcel, Places, send, side_by_side, unpacked


class WorldRanks:
    """What layers may ask of the other workers (`rec.moe.ranks.BatchRanks`), over the default process group."""

    def __init__(self) -> None:
        self.waiting = Waiting(self.sum)

    def sum(self, value: Tensor) -> Tensor:
        """Return the elementwise sum over ranks."""
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total

    def sum_later(self, value_X: Tensor) -> Later:
        """Return the elementwise sum over ranks, which is made with all others that wait when one is asked for."""
        return self.waiting.add(value_X)

    def join(self, value_A: Tensor) -> tuple[Tensor, int]:
        """Return the values of all ranks one after the other, and where this rank's begin."""
        world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        size_P = torch.zeros(world, dtype=torch.int64, device=value_A.device)
        size_P[rank] = len(value_A)
        torch.distributed.all_reduce(size_P)
        sizes = size_P.tolist()
        padded = value_A.new_zeros(max(sizes))
        padded[: len(value_A)] = value_A
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]), sum(sizes[:rank])


class ExpertParallel:
    """A layer's dispatch (`rec.moe.layer.Carry`) where each rank of a group holds an equal block of the experts.

    Args:
        group: The process group.
        observe: Told, with every message, how many bytes this rank sends to others; None counts nothing.
    """

    def __init__(self, group: Any, observe: Callable[[int], None] | None = None) -> None:
        self.link, self.ranks = Link(group=group, observe=observe), torch.distributed.get_world_size(group)
        self.places = {training: Places(self.ranks) for training in (False, True)}

    def __call__(self, x_ND: Tensor, weight_NK: Tensor, order: Order, experts: Experts) -> Tensor:
        """Return the weighted sum of every row's experts, (N, D); all ranks of the group call it together."""
        rows, choices = len(x_ND), weight_NK.shape[1]
        parcel, slot_A = self._parcel(order, rows, choices)
        slots = parcel.expert_QK.shape[1]
        weight_A = weight_NK.flatten()[order.slot_A].float()
        weight_X = weight_A.new_zeros((self.ranks + 1) * rows * slots).index_copy(0, slot_A, weight_A)
        weight_QK = weight_X.view(-1, slots)[: self.ranks * rows]
        # Training and evaluation have batches of their own sizes.
        places = self.places[torch.is_grad_enabled()]
        x_RD, weight_RK, expert_RK, sizes = Send.apply(x_ND, weight_QK, parcel, places, self.link)
        there_RK = (expert_RK >= 0).float()
        arrived = order_by_expert(Routing(expert_RK.clamp(min=0).long(), there_RK, there_RK), len(sizes.count_L))
        mixed_RD = carry(x_RD, weight_RK, replace(arrived, counts=sizes.count_L), experts)
        if torch.is_grad_enabled() and not mixed_RD.requires_grad:
            # Only other ranks may train experts in a phase; the way back is a message of all ranks all the same.
            mixed_RD.requires_grad_()
        y_SD = Return.apply(mixed_RD, sizes, self.link)
        row_S = parcel.pair_Q[: len(y_SD)] % max(rows, 1)
        return y_SD.new_zeros(rows, y_SD.shape[1]).index_add(0, row_S, y_SD)

    def _parcel(self, order: Order, rows: int, choices: int) -> tuple[Parcel, Tensor]:
        """Return what goes to each rank, and where each assignment lies among the pairs' slots, (A,).

        What is no assignment goes to a rank beyond the last, of which nothing is kept.
        """
        count_PL, device = order.count_E.view(self.ranks, -1), order.count_E.device
        local = count_PL.shape[1]
        slots = min(choices, local)  # no more of a row's experts can be on one rank
        to_A = order.expert_A.div(local, rounding_mode="floor")
        pair_A = to_A * rows + order.row_A
        used_Q = torch.zeros((self.ranks + 1) * rows, dtype=torch.bool, device=device)
        used_Q[pair_A] = True
        used_Q = used_Q[: self.ranks * rows]
        # Pairs in use, each once, sorted by destination and row; the others are written over each other at the end.
        place_Q = torch.where(used_Q, used_Q.cumsum(0) - 1, len(used_Q))
        pair_Q = torch.zeros(len(used_Q) + 1, dtype=torch.int64, device=device)
        pair_Q = pair_Q.scatter_(0, place_Q, torch.arange(len(used_Q), device=device))[:-1]
        number_A = torch.where(to_A < self.ranks, self._number_within_pair(to_A, order, rows, choices), 0)
        slot_A = pair_A * slots + number_A
        expert_X = torch.full(((self.ranks + 1) * rows * slots,), -1, dtype=torch.int16, device=device)
        expert_X[slot_A] = (order.expert_A % local).to(torch.int16)
        expert_QK = expert_X.view(-1, slots)[: self.ranks * rows]
        return Parcel(pair_Q, used_Q.view(self.ranks, rows).sum(1), count_PL, expert_QK), slot_A

    def _number_within_pair(self, to_A: Tensor, order: Order, rows: int, choices: int) -> Tensor:
        """Return for each assignment how many of its row go to the same rank before it."""
        to_NK = torch.full((rows * choices,), -1, dtype=to_A.dtype, device=to_A.device)
        to_NK = to_NK.index_copy(0, order.slot_A, to_A).view(rows, choices)
        number_NK = torch.zeros_like(to_NK)
        for k in range(1, choices):
            number_NK[:, k] = (to_NK[:, :k] == to_NK[:, k : k + 1]).sum(1)
        return number_NK.flatten()[order.slot_A]


class Send(torch.autograd.Function):
    """Rows, each once with the weights and numbers of its experts there, to the ranks that hold these."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_QK: Tensor, parcel: Parcel, places: Places, link: Link
    ) -> tuple[Tensor, Tensor, Tensor, MessageSizes]:
        """Return what has come: rows (R, D), weights and local experts (R, K), and how much went where."""
        x_RD, weight_RK, expert_RK, sizes = send(x_ND, weight_QK, parcel, places, link)
        ctx.sizes, ctx.link, ctx.rows = sizes, link, len(x_ND)
        ctx.save_for_backward(parcel.pair_Q)
        ctx.mark_non_differentiable(expert_RK)
        return x_RD, weight_RK, expert_RK, sizes

    @staticmethod
    def backward(ctx: Any, grad_RD: Tensor, grad_RK: Tensor, *_: Any) -> tuple[Tensor, Tensor, None, None, None]:
        """Return the gradients of rows and weights, which come back in one message."""
        sizes, (pair_Q,) = ctx.sizes, ctx.saved_tensors
        columns = [grad_RD, grad_RK]
        came = ctx.link.exchange(side_by_side(columns), sizes.rows_in, sizes.rows_out)
        grad_SD, grad_SK = unpacked([came], columns)
        pair_S = pair_Q[: len(came)]
        grad_ND = grad_SD.new_zeros(ctx.rows, grad_SD.shape[1]).index_add_(0, pair_S % max(ctx.rows, 1), grad_SD)
        grad_QK = grad_SK.new_zeros(len(pair_Q), grad_SK.shape[1]).index_copy_(0, pair_S, grad_SK)
        return grad_ND, grad_QK, None, None, None


class Return(torch.autograd.Function):
    """The experts' rows back to where they came from."""

    @staticmethod
    def forward(ctx: Any, y_RD: Tensor, sizes: MessageSizes, link: Link) -> Tensor:
        """Return the mixed rows, (S, D), in the order in which they were sent."""
        ctx.sizes, ctx.link = sizes, link
        return link.exchange(y_RD, sizes.rows_in, sizes.rows_out)

    @staticmethod
    def backward(ctx: Any, grad_SD: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the experts' rows."""
        return ctx.link.exchange(grad_SD, ctx.sizes.rows_out, ctx.sizes.rows_in), None, None
