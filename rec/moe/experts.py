"""Experts of one shape with grouped weights, called on rows that are sorted by expert.

Letters: M rows in the order of their experts, D width, F hidden width, R rank, E experts.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from rec.seeds import derive

Activation = Literal["gelu", "swiglu"]


class Experts(Protocol):
    """What a dispatch calls."""

    num_experts: int

    def __call__(self, x_MD: Tensor, end_E: Tensor) -> Tensor:
        """Return each row's output under its expert; expert e has the rows up to end_E[e] (int32, rising)."""


class FeedForwardExperts(nn.Module):
    """E feed-forward networks: GELU, or SwiGLU with a gate of its own.

    Expert e of `of` experts starts from the same weights wherever it is placed: the generator is seeded by its number.
    """

    def __init__(
        self, width: int, hidden: int, experts: int, *, activation: Activation = "gelu", seed: int = 0, first: int = 0
    ) -> None:
        super().__init__()
        self.num_experts, self.activation = experts, activation
        parts = 2 if activation == "swiglu" else 1
        self.up_EDF = nn.Parameter(_initial(experts, width, parts * hidden, seed, "up", first))
        self.down_EFD = nn.Parameter(_initial(experts, hidden, width, seed, "down", first))

    def forward(self, x_MD: Tensor, end_E: Tensor) -> Tensor:
        """Return each row's output under its expert, (M, D)."""
        hidden_MF = grouped_product(x_MD, self.up_EDF, end_E)
        if self.activation == "swiglu":
            gate_MF, value_MF = hidden_MF.chunk(2, -1)
            hidden_MF = nn.functional.silu(gate_MF) * value_MF
        else:
            hidden_MF = nn.functional.gelu(hidden_MF)
        return grouped_product(hidden_MF, self.down_EFD, end_E)


class LowRankExperts(nn.Module):
    """E linear maps of low rank, x A_e B_e: many experts for few parameters."""

    def __init__(self, width: int, rank: int, experts: int, *, seed: int = 0, first: int = 0) -> None:
        super().__init__()
        self.num_experts = experts
        self.down_EDR = nn.Parameter(_initial(experts, width, rank, seed, "down", first))
        self.up_ERD = nn.Parameter(_initial(experts, rank, width, seed, "up", first))

    def forward(self, x_MD: Tensor, end_E: Tensor) -> Tensor:
        """Return each row's output under its expert, (M, D)."""
        return grouped_product(grouped_product(x_MD, self.down_EDR, end_E), self.up_ERD, end_E)


class UnlikeExperts(nn.Module):
    """Experts of any shapes: modules from (rows, D) to (rows, D), called one after the other."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.num_experts = len(members)

    def forward(self, x_MD: Tensor, end_E: Tensor) -> Tensor:
        """Return each row's output under its expert, (M, D)."""
        ends = end_E.tolist()
        sizes = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        return torch.cat([member(part) for member, part in zip(self.members, x_MD.split(sizes), strict=True)])


def grouped_product(x_MD: Tensor, weight_EDF: Tensor, end_E: Tensor) -> Tensor:
    """Return x_m @ weight[expert of m] for rows sorted by expert, (M, F)."""
    product: Tensor = nn.functional.grouped_mm(x_MD, weight_EDF.to(x_MD.dtype), offs=end_E)
    return product


def _initial(experts: int, fan_in: int, fan_out: int, seed: int, name: str, first: int) -> Tensor:
    """Return normal weights of standard deviation 1 / sqrt(fan in), drawn expert by expert."""
    parts = []
    for expert in range(first, first + experts):
        generator = torch.Generator().manual_seed(derive(seed, name, expert))
        parts.append(torch.randn(fan_in, fan_out, generator=generator) * fan_in**-0.5)
    return torch.stack(parts)
