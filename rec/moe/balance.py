"""How evenly experts are used, as loss terms and as numbers to log."""

from __future__ import annotations

import torch
from torch import Tensor

from rec.moe.routing import Routing


def balance(routing: Routing) -> Tensor:
    """Return N * E * sum_e load_e * importance_e, a sum over rows whose mean is 1 for even use.

    load is the share of kept assignments (without gradient), importance the mean probability.

    Source: Fedus et al. 2021 (Switch Transformers), equation 4, for k experts per row.
    """
    experts = routing.probability_NE.shape[1]
    used = torch.zeros(experts, device=routing.weight_NK.device)
    used.scatter_add_(0, routing.expert_NK.flatten(), (routing.weight_NK > 0).float().flatten())
    load_E = used / used.sum().clamp(min=1)
    return experts * (load_E * routing.probability_NE.sum(0)).sum()
