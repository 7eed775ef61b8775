"""How evenly experts are used: loss terms as sums over rows, exact over workers.

Letters: N rows, E experts, K experts kept per row, C clusters with a gate each.
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


def assignments_by_gate(routing: Routing, cluster_N: Tensor, clusters: int) -> Tensor:
    """Return how many rows of each cluster each expert was given, float64 (C, E); counts of many workers add."""
    experts = routing.probability_NE.shape[1]
    used = torch.zeros(clusters * experts, dtype=torch.float64, device=routing.weight_NK.device)
    cell_NK = cluster_N[:, None] * experts + routing.expert_NK
    used.scatter_add_(0, cell_NK.flatten(), (routing.weight_NK > 0).double().flatten())
    return used.view(clusters, experts)


def balance_by_gate(routing: Routing, cluster_N: Tensor, count_CE: Tensor) -> Tensor:
    """Return `balance` with every cluster's gate judged by its own loads: each may prefer experts no less evenly."""
    load_CE = (count_CE / count_CE.sum(1, keepdim=True).clamp(min=1)).to(routing.probability_NE.dtype)
    return load_CE.shape[1] * (routing.probability_NE * load_CE[cluster_N]).sum()


def decision_entropy(probability_NE: Tensor) -> Tensor:
    """Return the sum over rows of each decision's entropy, in nats."""
    return -torch.special.xlogy(probability_NE, probability_NE.clamp(min=1e-30)).sum()
