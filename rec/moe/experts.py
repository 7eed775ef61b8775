"""Experts, called on rows that are grouped by expert.

Letters: P rows grouped by expert, D width, F hidden width, R rank, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rec.moe.feed_forward import SegmentedFeedForward
from rec.moe.grouping import Grouping, grouped_product, rows_per_call
from rec.nn.making import with_weights
from rec.seeds import derive

Activation = Literal["gelu", "swiglu"]


class Experts(nn.Module):
    """What a dispatch calls: experts on rows that are sorted by expert."""

    num_experts: int
    sized = False
    """Whether `forward` splits its rows by expert, so that the host must know how many each has."""

    def forward(self, x_PD: Tensor, grouping: Grouping) -> Tensor:
        """Return each row's output under its expert, (P, D); rows of padding may give anything."""
        raise NotImplementedError

    @property
    def call_rows(self) -> int:
        """Return how many rows of padding cost as much as one more product."""
        return max(rows_per_call(parameter) for parameter in self.parameters())

    def keep(self, first: int, count: int) -> None:
        """Forget all experts but `count` from `first` on, in place: each parameter's first axis is the expert."""
        for parameter in self.parameters():
            parameter.data = parameter.data[first : first + count].clone()
        self.num_experts = count


class DrawnExperts(Experts):
    """Experts whose first weights are drawn one by one: expert e from the seed and its number, whatever else there is.

    So they can be drawn where they live, by a rank that has no others (see `rec.nn.making`).

    Args:
        experts: Their number.
        seed: The seed.
        shapes: Rows and columns of each parameter of an expert, by the parameter's name.
    """

    def __init__(self, experts: int, seed: int, shapes: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        self.num_experts, self.seed, self.first = experts, seed, 0
        self.changes: list[Callable[[Any], None]] = []
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(experts, *shape)))
        if not self._is_empty:
            self.draw()

    @property
    def _is_empty(self) -> bool:
        return any(parameter.is_meta for parameter in self.parameters())

    @torch.no_grad()
    def draw(self) -> None:
        """Draw the first weights of the experts that are here: normal, of standard deviation 1 / sqrt(fan in)."""
        for name, parameter in self.named_parameters():
            kind = name.partition("_")[0]
            for place, one in enumerate(parameter):
                generator = torch.Generator().manual_seed(derive(self.seed, kind, self.first + place))
                one.copy_(torch.randn(one.shape, generator=generator) * one.shape[0] ** -0.5)
        for change in self.changes:
            change(self)
        self.changes.clear()

    @torch.no_grad()
    def start(self, change: Callable[[Any], None]) -> None:
        """Change the first weights of the experts that are here, of which `first` is the number of the first."""
        if self._is_empty:
            self.changes.append(change)
        else:
            change(self)

    def keep(self, first: int, count: int) -> None:
        """Forget all experts but `count` from `first` on, in place."""
        super().keep(first, count)
        self.first += first


def without_output(experts: FeedForwardExperts) -> None:
    """Let experts add nothing at first."""
    experts.down_EFD.data.zero_()


class FeedForward(nn.Module):
    """One feed-forward network: an expert that every row passes, or one of many by itself."""

    def __init__(
        self, width: int, hidden: int, *, out: int = 0, activation: Activation = "gelu", seed: int = 0
    ) -> None:
        super().__init__()
        with with_weights():
            one = FeedForwardExperts(width, hidden, 1, out=out, activation=activation, seed=seed)
        self.activation = activation
        self.up_DF, self.down_FD = nn.Parameter(one.up_EDF.data[0]), nn.Parameter(one.down_EFD.data[0])

    def first_layer(self, widths: Sequence[int]) -> tuple[Tensor, ...]:
        """Return the first layer's weights for so many columns of a row each, (W, F): their products add up to it."""
        return self.up_DF.split(list(widths))

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return (N, D), or as wide as `out` says."""
        return activate(x_ND @ self.up_DF, self.activation) @ self.down_FD


class FeedForwardExperts(DrawnExperts):
    """E feed-forward networks: GELU, or SwiGLU with a gate of its own.

    `out` is the width of outputs, 0 that of inputs.
    """

    up_EDF: nn.Parameter
    down_EFD: nn.Parameter

    def __init__(
        self, width: int, hidden: int, experts: int, *, out: int = 0, activation: Activation = "gelu", seed: int = 0
    ) -> None:
        parts = 2 if activation == "swiglu" else 1
        super().__init__(experts, seed, {"up_EDF": (width, parts * hidden), "down_EFD": (hidden, out or width)})
        self.activation = activation

    def forward(self, x_PD: Tensor, grouping: Grouping) -> Tensor:
        """Return each row's output under its expert, (P, D)."""
        if grouping.segments is not None and self.activation == "gelu":
            weights = (weight.to(x_PD.dtype) for weight in (self.up_EDF, self.down_EFD))
            y_PD: Tensor = SegmentedFeedForward.apply(x_PD, *weights, grouping.segments)
            return y_PD
        hidden_PF = activate(grouped_product(x_PD, self.up_EDF, grouping), self.activation)
        return grouped_product(hidden_PF, self.down_EFD, grouping)

    def first_layer(self, widths: Sequence[int]) -> tuple[Tensor, ...]:
        """Return the first layers' weights for so many columns of a row each, (E, W, F)."""
        return self.up_EDF.split(list(widths), dim=1)

    def member(self, expert: int) -> FeedForward:
        """Return a copy of one expert alone, its parameters in the same order."""
        width, (hidden, out) = self.up_EDF.shape[1], self.down_EFD.shape[1:]
        one = FeedForward(width, hidden, out=out, activation=self.activation)
        one.up_DF.data, one.down_FD.data = self.up_EDF.data[expert].clone(), self.down_EFD.data[expert].clone()
        return one


def fine_grained(
    width: int, hidden: int, experts: int, split: int, *, out: int = 0, activation: Activation = "gelu", seed: int = 0
) -> FeedForwardExperts:
    """Return `split` times as many experts of 1 / `split` of the hidden width: same parameters, same work at `split` k.

    Source: Dai et al. 2024 (DeepSeekMoE), section 3.1.

    Raises:
        ValueError: the hidden width does not divide.
    """
    if hidden % split:
        raise ValueError(f"hidden width {hidden} does not divide into {split} parts")
    return FeedForwardExperts(width, hidden // split, experts * split, out=out, activation=activation, seed=seed)


class UnlikeExperts(Experts):
    """Experts of any shapes: modules from (rows, D) to (rows, D), called one after the other."""

    sized = True

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleDict({str(number): member for number, member in enumerate(members)})
        self.num_experts = len(members)

    def forward(self, x_PD: Tensor, grouping: Grouping) -> Tensor:
        """Return each row's output under its expert, (P, D)."""
        parts = zip(self.members.values(), grouping.split(x_PD), strict=True)
        return torch.cat([member(part) for member, part in parts])

    @property
    def call_rows(self) -> int:
        """Return 0: every expert is called by itself, so padding gains nothing."""
        return 0

    def keep(self, first: int, count: int) -> None:
        """Forget all experts but `count` from `first` on, in place; those keep their numbers as names."""
        for number in range(self.num_experts):
            if not first <= number < first + count:
                del self.members[str(number)]
        self.num_experts = count


def activate(hidden_PF: Tensor, activation: Activation) -> Tensor:
    """Return GELU, or SwiGLU of the first half as the gate of the second."""
    if activation == "swiglu":
        gate_PF, value_PF = hidden_PF.chunk(2, -1)
        return nn.functional.silu(gate_PF) * value_PF
    return nn.functional.gelu(hidden_PF)
