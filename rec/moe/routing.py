"""Routing: which experts each row goes to, and with which share.

Letters: N rows, E experts (or modalities), K experts kept per row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Routing:
    """Where each of N rows goes."""

    expert_NK: Tensor
    """int64, in [0, E)."""
    weight_NK: Tensor
    """float32, the share each chosen expert has in the output; 0 for one that is not used."""
    probability_NE: Tensor
    """float32, rows sum to 1: what the gate said before anything was cut; what balance looks at."""
    score_NE: Tensor | None = None
    """float32, the gate's scores where it has some: what the router z-loss looks at."""

    def dense(self) -> Tensor:
        """Return the shares as (N, E), 0 where an expert is not used."""
        return torch.zeros_like(self.probability_NE).scatter(1, self.expert_NK, self.weight_NK)

    def experts(self) -> list[dict[int, float]]:
        """Return the experts that each row uses, with their weights, the heaviest first."""
        found = []
        for experts, weights in zip(self.expert_NK.tolist(), self.weight_NK.tolist(), strict=True):
            used = ((weight, expert) for expert, weight in zip(experts, weights, strict=True) if weight > 0)
            found.append({expert: weight for weight, expert in sorted(used, key=lambda one: -one[0])})
        return found


def softmax(score_NE: Tensor, temperature: float = 1.0) -> Tensor:
    """Return probabilities over experts in float32: the softargmax that becomes argmax as temperature falls to 0."""
    return (score_NE.float() / temperature).softmax(-1)


def keep_all(probability_NE: Tensor) -> Routing:
    """Return the routing that uses every expert with its probability."""
    expert = torch.arange(probability_NE.shape[1], device=probability_NE.device).expand_as(probability_NE)
    return Routing(expert, probability_NE, probability_NE)


def keep_top_k(probability_NE: Tensor, k: int) -> Routing:
    """Return the routing that keeps the k most probable experts and rescales them to 1."""
    weight_NK, expert_NK = probability_NE.topk(k, dim=-1)
    return Routing(expert_NK, weight_NK / weight_NK.sum(-1, keepdim=True), probability_NE)


def keep_share(probability_NE: Tensor, share: float) -> Routing:
    """Return the routing that keeps, per row, the fewest most probable experts that reach `share` together.

    The number of experts follows how sure the gate is (dynamic top-k); what is kept is rescaled to 1.
    """
    weight_NK, expert_NK = probability_NE.sort(dim=-1, descending=True)
    before = weight_NK.cumsum(-1) - weight_NK
    kept = weight_NK * (before < share)
    return Routing(expert_NK, kept / kept.sum(-1, keepdim=True), probability_NE)
