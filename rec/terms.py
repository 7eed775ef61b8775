"""Terms: the named parts of a loss, as sums that add up over ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rec.transfer import to_device

TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a loss, kept as a sum so that ranks and microbatches add up exactly."""

    sum: Tensor  # ()
    count: Tensor | float
    weight: float = 1.0
    root: bool = False
    """Whether the root of the sum over all ranks counts: the norm of the global batch from sums of squares."""
    scale: Callable[[Mapping[str, float]], float] | None = None
    """What the weight is multiplied by, given every term of the global batch without its weight; None is 1."""

    @property
    def mean(self) -> Tensor:
        """The term of this rank's rows alone, without its weight."""
        return (self.sum.sqrt() if self.root else self.sum) / float(self.count)

    def weight_in(self, values: Mapping[str, float]) -> float:
        """Return the weight among terms of the global batch that have these values."""
        return self.weight if self.scale is None else self.weight * self.scale(values)

    def value_of(self, total: float, count: float) -> float:
        """Return the term of the global batch from sums over all ranks, without its weight; 0 where nothing counts."""
        return (math.sqrt(total) if self.root else total) / count if count else 0.0

    def part_of(self, total: float, count: float) -> Tensor:
        """Return what to differentiate here, so that gradients add up over ranks to that of the global batch's term."""
        slope = 0.5 / math.sqrt(max(total, TINY)) if self.root else 1.0
        return self.sum * (slope / count if count else 0.0)

    def part_over(self, total: Tensor, count: Tensor) -> Tensor:
        """Return `part_of` sums over all ranks, float64 (), that lie on a device; the host does not wait for them."""
        slope = 0.5 / total.clamp(min=TINY).sqrt() if self.root else torch.ones_like(total)
        own = self.sum if self.sum.dtype == torch.float64 else self.sum.float()
        return own * torch.where(count == 0, 0.0, slope / count).to(own.dtype)


def table_of(terms: Mapping[str, Term], device: torch.device) -> Tensor:
    """Return this rank's sum and count of each term on a device, float64 (terms, 2)."""
    sums = torch.stack([term.sum.detach().double() for term in terms.values()])
    known = [0.0 if isinstance(term.count, Tensor) else term.count for term in terms.values()]
    counts = to_device(known, torch.float64, device)
    for place, term in enumerate(terms.values()):
        if isinstance(term.count, Tensor):
            counts[place] = term.count.detach()
    return torch.stack([sums, counts], 1)
