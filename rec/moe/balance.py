"""How evenly experts are used: loss terms as sums over rows, exact over workers, and numbers to log.

Letters: N rows, E experts, K experts kept per row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rec.moe.routing import Routing


def assignments(routing: Routing) -> Tensor:
    """Return how many rows each expert was given, float64 (E,); counts of many workers add."""
    used = torch.zeros(routing.probability_NE.shape[1], dtype=torch.float64, device=routing.weight_NK.device)
    return used.scatter_add_(0, routing.expert_NK.flatten(), (routing.weight_NK > 0).double().flatten())


def balance(routing: Routing, count_E: Tensor) -> Tensor:
    """Return this worker's part of N * E * sum_e load_e * importance_e, whose mean over rows is 1 for even use.

    load is the share of assignments, from the counts of the global batch and without gradient; importance the mean
    probability. Divided by the global number of rows, the parts of all workers add up to the loss of the joined batch.
    Source: Fedus et al. 2021 (Switch Transformers), equation 4, for k experts per row.
    """
    load_E = (count_E / count_E.sum().clamp(min=1)).to(routing.probability_NE.dtype)
    return len(load_E) * (routing.probability_NE.sum(0) * load_E).sum()


def router_z(score_NE: Tensor) -> Tensor:
    """Return the sum over rows of the squared log-sum-exp of the scores: keeps scores small.

    Source: Zoph et al. 2022 (ST-MoE), equation 5.
    """
    return score_NE.float().logsumexp(-1).square().sum()


def health(count_E: Tensor) -> dict[str, float]:
    """Return the entropy of use in [0, 1], the share of the most used expert, and how many were never used."""
    share = count_E / count_E.sum().clamp(min=1)
    entropy = -torch.special.xlogy(share, share).sum() / torch.log(torch.tensor(float(max(len(share), 2))))
    return {"use_entropy": float(entropy), "largest_share": float(share.max()), "unused": float((count_E == 0).sum())}
