"""Expert-parallel dispatch: a row crosses once to each rank that holds an expert of it, and nothing is padded.

Rank p of P holds the experts [p L, (p + 1) L). A row that two experts of one rank want is sent there once, and their
weighted sum comes back as one row, so what crosses is what must.

Letters: N rows of this rank, K experts per row, A assignments of this rank, S rows it sends, R rows it receives, B
assignments it receives, Q pairs of rank and row, D width, P ranks, L experts of this rank, E = P L.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from rec.moe.dispatch import Order, carry, order_by_expert
from rec.moe.experts import Experts
from rec.moe.routing import Routing


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much goes to and comes from each rank."""

    rows_out: list[int]
    rows_in: list[int]
    assignments_out: list[int]
    assignments_in: list[int]
    count_PL: Tensor
    """Assignments that come from rank p for local expert l, int64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The ranks of a group, and who is told of the bytes that this one sends to others."""

    group: Any
    observe: Callable[[int], None] | None = None

    def exchange(self, value: Tensor, sizes_out: list[int], sizes_in: list[int]) -> Tensor:
        """Return the rows that come from all ranks, in their order, for those of `value` that go to each."""
        if self.observe is not None:
            crossing = sum(sizes_out) - sizes_out[torch.distributed.get_rank(self.group)]
            self.observe(crossing * value[:1].numel() * value.element_size() if crossing else 0)
        received = value.new_empty((sum(sizes_in), *value.shape[1:]))
        torch.distributed.all_to_all_single(received, value.contiguous(), sizes_in, sizes_out, group=self.group)
        return received


class WorldRanks:
    """What a layer may ask of the other workers (`rec.moe.ranks.Ranks`), over the default process group."""

    def sum(self, value: Tensor) -> Tensor:
        """Return the elementwise sum over ranks."""
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total

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

    def __call__(self, x_ND: Tensor, weight_NK: Tensor, order: Order, experts: Experts) -> Tensor:
        """Return the weighted sum of every row's experts, (N, D); all ranks of the group call it together."""
        rows, choices = len(x_ND), weight_NK.shape[1]
        count_PL = order.count_E.view(self.ranks, -1)
        slots = min(choices, count_PL.shape[1])  # no more of a row's experts can be on one rank
        to_A = order.expert_A.div(count_PL.shape[1], rounding_mode="floor")
        # Pairs of (destination, row) in use, each once, sorted by destination and row.
        pair_A = to_A * rows + order.row_A
        used_Q = torch.zeros(self.ranks * rows, dtype=torch.bool, device=x_ND.device)
        used_Q[pair_A] = True
        row_S = used_Q.nonzero()[:, 0] % max(rows, 1)
        rows_P = used_Q.view(self.ranks, rows).sum(1)
        before_P = rows_P.cumsum(0) - rows_P
        place_A = used_Q.cumsum(0)[pair_A] - 1 - before_P[to_A]
        slot_A = place_A * slots + self._number_within_pair(to_A, order, rows, choices)
        sizes = self._sizes(rows_P, count_PL)

        x_RD, weight_B, slot_B = Send.apply(
            x_ND.index_select(0, row_S), weight_NK.flatten()[order.slot_A], slot_A, sizes, self.link
        )
        # Assignments come sorted by source, then expert.
        count_PL = sizes.count_PL
        expert_B = torch.arange(count_PL.shape[1], device=x_ND.device).repeat(self.ranks)
        expert_B = expert_B.repeat_interleave(count_PL.flatten())
        first_P = torch.tensor([0, *sizes.rows_in], device=x_ND.device).cumsum(0)[:-1]
        slot_B = slot_B + slots * first_P.repeat_interleave(count_PL.sum(1))
        expert_RK = torch.zeros(len(x_RD) * slots, dtype=torch.int64, device=x_ND.device)
        expert_RK = expert_RK.index_copy(0, slot_B, expert_B).view(-1, slots)
        weight_RK = weight_B.new_zeros(len(x_RD) * slots).index_copy(0, slot_B, weight_B).view(-1, slots)
        arrived = order_by_expert(Routing(expert_RK, weight_RK, weight_RK), count_PL.shape[1])
        mixed_RD = carry(x_RD, weight_RK, arrived, experts)
        if torch.is_grad_enabled() and not mixed_RD.requires_grad:
            # Only other ranks may train experts in a phase; the way back is a message of all ranks all the same.
            mixed_RD.requires_grad_()
        y_SD = Return.apply(mixed_RD, sizes, self.link)
        return y_SD.new_zeros(rows, y_SD.shape[1]).index_add(0, row_S, y_SD)

    def _number_within_pair(self, to_A: Tensor, order: Order, rows: int, choices: int) -> Tensor:
        """Return for each assignment how many of its row go to the same rank before it."""
        to_NK = torch.full((rows * choices,), -1, dtype=to_A.dtype, device=to_A.device)
        to_NK = to_NK.index_copy(0, order.slot_A, to_A).view(rows, choices)
        number_NK = torch.zeros_like(to_NK)
        for k in range(1, choices):
            number_NK[:, k] = (to_NK[:, :k] == to_NK[:, k : k + 1]).sum(1)
        return number_NK.flatten()[order.slot_A]

    def _sizes(self, rows_P: Tensor, count_PL: Tensor) -> Sizes:
        """Tell every rank how much will come from this one."""
        out_PX = torch.cat([rows_P[:, None], count_PL], 1)
        in_PX = torch.empty_like(out_PX)
        torch.distributed.all_to_all_single(in_PX, out_PX, group=self.link.group)
        if self.link.observe is not None:
            self.link.observe((self.ranks - 1) * out_PX[:1].numel() * out_PX.element_size())
        lists = torch.stack([rows_P, in_PX[:, 0], count_PL.sum(1), in_PX[:, 1:].sum(1)]).tolist()
        return Sizes(lists[0], lists[1], lists[2], lists[3], in_PX[:, 1:])


class Send(torch.autograd.Function):
    """Rows, and the weight and the slot of each assignment, to the ranks that hold the experts."""

    @staticmethod
    def forward(
        ctx: Any, x_SD: Tensor, weight_A: Tensor, slot_A: Tensor, sizes: Sizes, link: Link
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what has come: rows (R, D), weights (B,), and slots within what their source sent (B,)."""
        ctx.sizes, ctx.link = sizes, link
        x_RD = link.exchange(x_SD, sizes.rows_out, sizes.rows_in)
        # One message for both: the slot travels as the bits of a float.
        both_A2 = torch.stack([weight_A.float(), slot_A.to(torch.int32).view(torch.float32)], 1)
        both_B2 = link.exchange(both_A2, sizes.assignments_out, sizes.assignments_in)
        slot_B = both_B2[:, 1].contiguous().view(torch.int32).long()
        ctx.mark_non_differentiable(slot_B)
        return x_RD, both_B2[:, 0].contiguous(), slot_B

    @staticmethod
    def backward(ctx: Any, grad_RD: Tensor, grad_B: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Return the gradients of rows and weights."""
        sizes = ctx.sizes
        grad_SD = ctx.link.exchange(grad_RD, sizes.rows_in, sizes.rows_out)
        return grad_SD, ctx.link.exchange(grad_B, sizes.assignments_in, sizes.assignments_out), None, None, None


class Return(torch.autograd.Function):
    """The experts' rows back to where they came from."""

    @staticmethod
    def forward(ctx: Any, y_RD: Tensor, sizes: Sizes, link: Link) -> Tensor:
        """Return the mixed rows, (S, D), in the order in which they were sent."""
        ctx.sizes, ctx.link = sizes, link
        return link.exchange(y_RD, sizes.rows_in, sizes.rows_out)

    @staticmethod
    def backward(ctx: Any, grad_SD: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the experts' rows."""
        return ctx.link.exchange(grad_SD, ctx.sizes.rows_out, ctx.sizes.rows_in), None, None
