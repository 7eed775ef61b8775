"""How experts are doing: what a layer counts while it trains, and what is read from the counts and the weights.

Letters: N rows, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rec.moe.routing import Routing

SAMPLE = 512
"""Rows of a batch whose decisions are looked at; counts are exact."""


class Usage:
    """Counts of one layer since they were last taken, over all workers.

    An observation is a float64 vector (E + 3): assignments per expert, rows, the sum of the decisions' entropies in
    [0, 1] over a sample of the rows, and the size of the sample.
    """

    def __init__(self, experts: int) -> None:
        self.experts = experts
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.total = torch.zeros(self.experts + 3, dtype=torch.float64)
        self.last = self.total
        self.dropped = torch.zeros((), dtype=torch.float64)

    @property
    def last_E(self) -> Tensor:
        """Assignments per expert of the last batch that was added."""
        return self.last[: self.experts]

    def observe(self, routing: Routing, count_E: Tensor) -> Tensor:
        """Return what one worker sees in one batch; observations of several workers add."""
        rows = len(routing.probability_NE)
        sample = routing.probability_NE.detach()[:: max(1, rows // SAMPLE)]
        entropy = -torch.special.xlogy(sample, sample).sum() / _log(self.experts)
        size = torch.tensor([rows, 0.0, len(sample)], dtype=torch.float64, device=count_E.device)
        size[1] = entropy
        return torch.cat([count_E, size])

    def add(self, seen: Tensor, dropped: int) -> None:
        """Count an observation of all workers, and what this worker dropped."""
        self.last = seen
        self.total = self.total.to(seen.device) + seen
        self.dropped = self.dropped.to(seen.device) + dropped

    def summary(self) -> dict[str, float]:
        """Return the metrics of what was counted, for logs: see `health`, and the entropy of decisions."""
        found = health(self.total[: self.experts])
        sampled = float(self.total[self.experts + 2])
        found["decision_entropy"] = float(self.total[self.experts + 1]) / sampled if sampled else 0.0
        found["dropped_share"] = float(self.dropped) / max(1.0, float(self.total[: self.experts].sum()))
        return found


def health(count_E: Tensor) -> dict[str, float]:
    """Return the entropy of use in [0, 1], the share of the most used expert, and how many were never used."""
    share = count_E / count_E.sum().clamp(min=1)
    entropy = -torch.special.xlogy(share, share).sum() / _log(len(share))
    return {"use_entropy": float(entropy), "largest_share": float(share.max()), "unused": float((count_E == 0).sum())}


def similarity(weight_ED: Tensor) -> Tensor:
    """Return the cosine between the flattened weights of every two experts, (E, E)."""
    unit = torch.nn.functional.normalize(weight_ED.flatten(1).float(), dim=1)
    return unit @ unit.T


def _log(experts: int) -> float:
    return float(torch.tensor(float(max(experts, 2))).log())
