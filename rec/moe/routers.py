"""Routers: from rows to a `Routing`. Scores are float32 whatever the rows are.

Letters: N rows, D width, E experts, K experts kept per row, C clusters, T towers, or C experts of a tower.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from rec import transfer
from rec.moe.routing import Routing, keep_top_k


class SoftmaxRouter(nn.Module):
    """Softmax gate that keeps the k most probable experts.

    `noise` adds normal noise of a learned size to the scores while training (Shazeer et al. 2017, equation 4);
    `normalise` rescales the k kept weights to 1, otherwise they stay the probabilities they are; so does a single one,
    whose weight would be 1 whatever the gate says, and the gate would learn nothing from what its expert does.
    """

    def __init__(self, width: int, experts: int, k: int, *, noise: bool = False, normalise: bool = True) -> None:
        super().__init__()
        check_k(k, experts)
        self.k, self.normalise = k, normalise
        self.gate = _linear(width, experts)
        self.spread = _linear(width, experts) if noise else None

    def forward(self, x_ND: Tensor) -> Routing:
        """Return the routing of every row."""
        score_NE = nn.functional.linear(x_ND.float(), self.gate.weight.float())
        if self.spread is not None and self.training:
            spread_NE = nn.functional.softplus(nn.functional.linear(x_ND.float(), self.spread.weight.float()))
            score_NE = score_NE + spread_NE * torch.randn_like(score_NE)
        return self.decide(score_NE)

    def decide(self, score_NE: Tensor) -> Routing:
        """Return the routing of rows with these products with the gate."""
        return _routing(score_NE, self.k, self.normalise)


class RandomRouter(SoftmaxRouter):
    """Control: a softmax gate that stays as it was drawn. Rows that are alike come to the same experts all the same.

    Source: Roller et al. 2021 (hash layers), where experts are chosen by what nothing was learned for.
    """

    def __init__(self, width: int, experts: int, k: int) -> None:
        super().__init__(width, experts, k)
        self.gate.weight.requires_grad_(False)


class UniformRouter(SoftmaxRouter):
    """Control: every row passes all experts with the same weight, so that nothing is routed."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__(width, experts, experts)
        nn.init.zeros_(self.gate.weight).requires_grad_(False)


class SigmoidRouter(nn.Module):
    """Sigmoid gate whose choice is steered by a bias per expert: balance without an auxiliary loss.

    The bias decides who is chosen, not with which weight. `rebalance` moves it by `rate` towards even use and is
    called once per optimiser step with the assignments of the global batch.

    Source: Wang et al. 2024 (auxiliary-loss-free load balancing), algorithm 1.
    """

    def __init__(self, width: int, experts: int, k: int, *, rate: float = 1e-3) -> None:
        super().__init__()
        check_k(k, experts)
        self.k, self.rate = k, rate
        self.gate = _linear(width, experts)
        # Counted in whole moves, so that a model in bfloat16 loses none.
        self.moves_E: Tensor
        self.register_buffer("moves_E", torch.zeros(experts, dtype=torch.int64))

    @property
    def bias_E(self) -> Tensor:
        """What is added to every expert's affinity when experts are chosen."""
        return self.rate * self.moves_E

    def forward(self, x_ND: Tensor) -> Routing:
        """Return the routing of every row; its probabilities are the sigmoids rescaled to 1."""
        return self.decide(nn.functional.linear(x_ND.float(), self.gate.weight.float()))

    def decide(self, score_NE: Tensor) -> Routing:
        """Return the routing of rows with these products with the gate."""
        affinity_NE = score_NE.sigmoid()
        expert_NK = (affinity_NE.detach() + self.bias_E).topk(self.k, dim=-1).indices
        weight_NK = affinity_NE.gather(1, expert_NK)
        if self.k > 1:
            weight_NK = weight_NK / weight_NK.sum(-1, keepdim=True).clamp(min=1e-20)
        return Routing(expert_NK, weight_NK, affinity_NE / affinity_NE.sum(-1, keepdim=True).clamp(min=1e-20))

    @torch.no_grad()
    def rebalance(self, count_E: Tensor) -> None:
        """Raise the bias of experts with fewer assignments than the mean, lower that of those with more."""
        self.moves_E += (count_E.double().mean() - count_E.double()).sign().to(self.moves_E)


class ClusterRouter(nn.Module):
    """One softmax gate per cluster; the row says which it belongs to."""

    def __init__(self, width: int, clusters: int, experts: int, k: int) -> None:
        super().__init__()
        check_k(k, experts)
        self.k, self.gates = k, clusters
        self.weight_CDE = nn.Parameter(torch.empty(clusters, width, experts))
        nn.init.normal_(self.weight_CDE, std=width**-0.5)

    def forward(self, x_ND: Tensor, cluster_N: Tensor) -> Routing:
        """Return the routing of every row by the gate of its cluster (int64 in [0, C))."""
        if not transfer.host_knows(cluster_N):
            score_NCE = self.of_all(x_ND)
            place_N1E = cluster_N[:, None, None].expand(-1, 1, score_NCE.shape[2])
            return _routing(score_NCE.gather(1, place_N1E)[:, 0], self.k)
        # On a CPU a gate is worth a look at which rows are its own.
        score_NE = x_ND.new_zeros((len(x_ND), self.weight_CDE.shape[2]), dtype=torch.float32)
        for cluster in cluster_N.unique().tolist():
            rows = (cluster_N == cluster).nonzero()[:, 0]
            score_NE = score_NE.index_copy(0, rows, x_ND[rows].float() @ self.weight_CDE[cluster].float())
        return _routing(score_NE, self.k)

    def of_all(self, x_ND: Tensor) -> Tensor:
        """Return the scores of all clusters' gates, (N, C, E)."""
        clusters, width, experts = self.weight_CDE.shape
        weight_DX = self.weight_CDE.float().transpose(0, 1).reshape(width, clusters * experts)
        return (x_ND.float() @ weight_DX).view(len(x_ND), clusters, experts)


class TowerRouter(nn.Module):
    """One softmax gate per tower over experts that all towers share, and over those of its own.

    Experts are numbered: the shared ones, then each tower's. Source: Xi et al. 2023 (KAR), equations 5 to 7.
    """

    def __init__(self, width: int, towers: int, shared: int, own: int, k: int) -> None:
        super().__init__()
        check_k(k, shared + own)
        self.k, self.num_experts = k, shared + towers * own
        self.weight_TDC = nn.Parameter(torch.empty(towers, width, shared + own))
        nn.init.normal_(self.weight_TDC, std=width**-0.5)
        first_T1 = shared + own * torch.arange(towers)[:, None]
        self.expert_TC: Tensor
        expert_TC = torch.cat([torch.arange(shared).expand(towers, -1), first_T1 + torch.arange(own)], 1)
        self.register_buffer("expert_TC", expert_TC, persistent=False)

    def forward(self, x_ND: Tensor, tower_N: Tensor) -> Routing:
        """Return the routing of every row by the gate of its tower (int64 in [0, T))."""
        towers, width, _ = self.weight_TDC.shape
        score_NTC = (x_ND.float() @ self.weight_TDC.float().transpose(0, 1).reshape(width, -1)).view(
            len(x_ND), towers, -1
        )
        own_NC = score_NTC.gather(1, tower_N[:, None, None].expand(-1, 1, score_NTC.shape[2]))[:, 0]
        other_NE = own_NC.new_full((len(x_ND), self.num_experts), -torch.inf)
        return _routing(other_NE.scatter(1, self.expert_TC[tower_N], own_NC), self.k)


class SoftClusterRouter(ClusterRouter):
    """One softmax gate per cluster; scores of all are summed by how far the row belongs to each."""

    def forward(self, x_ND: Tensor, share_NC: Tensor) -> Routing:
        """Return the routing of every row by the gates' scores under its shares of clusters, which sum to 1."""
        return _routing(torch.einsum("nc,nce->ne", share_NC.float(), self.of_all(x_ND)), self.k)


def _routing(score_NE: Tensor, k: int, normalise: bool = True) -> Routing:
    """Return the routing of the k highest scores."""
    routing = keep_top_k(score_NE.softmax(-1), k)
    if k == 1 or not normalise:
        routing = replace(routing, weight_NK=routing.probability_NE.gather(1, routing.expert_NK))
    return replace(routing, score_NE=score_NE)


def without(routing: Routing, expert: int) -> Routing:
    """Return the routing of a softmax gate as if an expert did not exist: its share goes to each row's next choices."""
    assert routing.score_NE is not None, "this router has no scores"
    expert_1 = torch.tensor([expert], device=routing.score_NE.device)
    return _routing(routing.score_NE.index_fill(1, expert_1, -torch.inf), routing.expert_NK.shape[1])


def check_k(k: int, experts: int) -> None:
    """Refuse a number of experts per row that cannot be.

    Raises:
        ValueError: k is not in [1, experts].
    """
    if not 1 <= k <= experts:
        raise ValueError(f"k must be in [1, {experts}], got {k}")


def _linear(width: int, out: int) -> nn.Linear:
    linear = nn.Linear(width, out, bias=False)
    nn.init.normal_(linear.weight, std=width**-0.5)
    return linear
