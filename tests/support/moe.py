"""Experts of a kind of their own, and dispatch by its definition.

Letters: N rows, P assigned rows, D width, R rank, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rec.moe.experts import DrawnExperts, Experts
from rec.moe.grouping import Grouping, grouped_product
from rec.moe.routing import Routing


class LowRankExperts(DrawnExperts):
    """E linear maps of low rank, x A_e B_e: many experts for few parameters."""

    down_EDR: nn.Parameter
    up_ERD: nn.Parameter

    def __init__(self, width: int, rank: int, experts: int, *, seed: int = 0) -> None:
        super().__init__(experts, seed, {"down_EDR": (width, rank), "up_ERD": (rank, width)})

    def forward(self, x_PD: Tensor, grouping: Grouping) -> Tensor:
        """Return each row's output under its expert, (P, D)."""
        return grouped_product(grouped_product(x_PD, self.down_EDR, grouping), self.up_ERD, grouping)


def dispatch_dense(x_ND: Tensor, routing: Routing, experts: Experts) -> Tensor:
    """Return what `carry` does by the definition: every expert on every row, weighted by one-hot shares."""
    total: Tensor | float = 0.0
    share_NE = routing.dense()
    for expert in range(experts.num_experts):
        count_E = torch.zeros(experts.num_experts, dtype=torch.int64)
        count_E[expert] = len(x_ND)
        total = total + share_NE[:, expert, None].to(x_ND.dtype) * experts(x_ND, Grouping(count_E, None))
    assert isinstance(total, Tensor)
    return total
