"""What experts are worth: how alike they are on the same rows, how far their use follows groups, and how layers do
without one of them.

Letters: N rows, D width, E experts, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec.moe.dispatch import order_by_expert
from rec.moe.layer import MixtureOfExperts
from rec.moe.routers import without
from rec.moe.routing import Routing


def mutual_information(count_GE: np.ndarray) -> float:
    """Return in nats how much a group tells of the expert, given how often each group's rows came to each expert.

    0 where all groups use experts alike; log 2 = 0.69 where each of two equal groups has an expert of its own.
    """
    share_GE = count_GE / max(count_GE.sum(), 1)
    alone_GE = share_GE.sum(1, keepdims=True) * share_GE.sum(0, keepdims=True)
    there = share_GE > 0
    return max(0.0, float((share_GE[there] * np.log(share_GE[there] / alone_GE[there])).sum()))


@torch.no_grad()
def outputs(layer: MixtureOfExperts, x_ND: Tensor) -> Tensor:
    """Return what each expert of a layer makes of the same rows, unweighted, (E, N, D)."""
    weight_N1 = torch.ones(len(x_ND), 1, device=x_ND.device)
    found = []
    for expert in range(layer.num_experts):
        expert_N1 = torch.full((len(x_ND), 1), expert, device=x_ND.device)
        probability_NE = weight_N1.new_zeros(len(x_ND), layer.num_experts).index_fill_(1, expert_N1[:1, 0], 1.0)
        order = order_by_expert(Routing(expert_N1, weight_N1, probability_NE), layer.num_experts)
        found.append(layer.carry(x_ND, weight_N1, order, layer.experts))
    return torch.stack(found)


def output_similarity(layer: MixtureOfExperts, x_ND: Tensor) -> Tensor:
    """Return the cosine between what every two experts make of the same rows, in the mean over rows, (E, E).

    Experts with equal weights have 1; of an expert that gives nothing but zeros it is 0.
    """
    unit_END = nn.functional.normalize(outputs(layer, x_ND).float(), dim=2)
    alike_EE: Tensor = torch.einsum("end,fnd->ef", unit_END, unit_END) / max(len(x_ND), 1)
    return alike_EE


@contextmanager
def switched_off(layer: MixtureOfExperts, expert: int) -> Iterator[None]:
    """Let a layer route as if it did not have an expert: its share goes to the next choices of each row."""
    handle = layer.router.register_forward_hook(lambda _, __, routing: without(routing, expert))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def rows_of(layers: Mapping[str, MixtureOfExperts], most: int) -> Iterator[dict[str, Tensor]]:
    """Hear about `most` rows of what comes to each layer in the next pass, (N, D) by its name, evenly taken."""
    found: dict[str, Tensor] = {}

    def hear(name: str) -> Callable[[nn.Module, Any], None]:
        def note(_: nn.Module, given: Any) -> None:
            x_ND = given[0]
            if isinstance(x_ND, Tensor):
                found[name] = x_ND.detach()[:: max(1, -(-len(x_ND) // max(most, 1)))].clone()

        return note

    handles = [layer.register_forward_pre_hook(hear(name)) for name, layer in layers.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
