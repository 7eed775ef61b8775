"""How experts are doing: what a layer counts while it trains, and what is read from the counts and the weights.

Letters: N rows, E experts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rec.moe.balance import decision_entropy
from rec.moe.ranks import Later
from rec.moe.routing import Routing

SAMPLE = 512
"""Rows of a batch whose decisions are looked at; counts are exact."""


class Usage:
    """Counts of one layer since they were last taken, over all workers.

    An observation is a float64 vector (E + 3): assignments per expert, rows, the sum of the decisions' entropies in
    [0, 1] over a sample of the rows, and the size of the sample. A count has one more, the assignments dropped.
    """

    def __init__(self, experts: int) -> None:
        self.experts = experts
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._waiting: list[tuple[Later, int]] = []
        self._total = torch.zeros(self.experts + 4, dtype=torch.float64)
        self._last = self._total

    @property
    def total(self) -> Tensor:
        """What was counted; sums over workers that wait are made, so that all ask together."""
        self.settle()
        return self._total

    @property
    def last(self) -> Tensor:
        """The last batch that was added; as for `total`."""
        self.settle()
        return self._last

    def put(self, total: Tensor, last: Tensor) -> None:
        """Go on from these counts."""
        self.settle()
        self._total, self._last = total, last

    def settle(self) -> None:
        """Count what was added."""
        waiting, self._waiting = self._waiting, []
        for seen, dropped in waiting:
            counts = seen()
            self._last = torch.cat([counts, torch.full_like(counts[:1], dropped)])
            self._total = self._total.to(counts.device, non_blocking=True) + self._last

    @property
    def last_E(self) -> Tensor:
        """Assignments per expert of the last batch that was added."""
        return self.last[: self.experts]

    def observe(self, routing: Routing, count_E: Tensor) -> Tensor:
        """Return what one worker sees in one batch; observations of several workers add."""
        rows = len(routing.probability_NE)
        sample = routing.probability_NE.detach()[:: max(1, rows // SAMPLE)]
        one = count_E[:1]
        entropy = _relative_entropy(sample).to(one.dtype)[None]
        return torch.cat([count_E, torch.full_like(one, rows), entropy, torch.full_like(one, len(sample))])

    def add(self, seen: Later, dropped: int) -> None:
        """Count an observation of all workers, and what they dropped."""
        self._waiting.append((seen, dropped))

    def state(self) -> list[float]:
        """Return the counts, for a checkpoint."""
        counts: list[float] = self.total.tolist()
        return counts

    def load(self, state: list[float]) -> None:
        """Go on from the counts of a checkpoint."""
        self.settle()
        self._total = torch.tensor(state, dtype=torch.float64)

    def summary(self, last: bool = False) -> dict[str, float]:
        """Return what was counted, or seen last: `health`, the entropy of decisions, the share dropped."""
        counted = self.last if last else self.total
        found = health(counted[: self.experts])
        _, entropy, sampled, dropped = counted[self.experts :].tolist()
        found["decision_entropy"] = entropy / sampled if sampled else 0.0
        found["dropped_share"] = dropped / max(1.0, float(counted[: self.experts].sum()))
        return found

    def load_E(self) -> Tensor:
        """Return each expert's share of the assignments."""
        return _share(self.total[: self.experts])


def health(count_E: Tensor) -> dict[str, float]:
    """Return the entropy of use in [0, 1], the share of the most used expert, and how many were never used."""
    share = _share(count_E)
    entropy = _relative_entropy(share)
    return {"use_entropy": float(entropy), "largest_share": float(share.max()), "unused": float((count_E == 0).sum())}


def similarity(weight_ED: Tensor) -> Tensor:
    """Return the cosine between the flattened weights of every two experts, (E, E)."""
    unit = torch.nn.functional.normalize(weight_ED.flatten(1).float(), dim=1)
    return unit @ unit.T


def _share(count_E: Tensor) -> Tensor:
    return count_E / count_E.sum().clamp(min=1)


def _relative_entropy(share: Tensor) -> Tensor:
    """Return the summed entropy of shares over the last axis, where even shares have 1."""
    return decision_entropy(share) / math.log(max(share.shape[-1], 2))
