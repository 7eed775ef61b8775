"""A mixture-of-experts layer: a router decides, a dispatch carries, experts compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rec.errors import ConfigError
from rec.moe.balance import (
    assignments,
    assignments_by_gate,
    balance,
    balance_by_gate,
    decision_entropy,
    router_z,
)
from rec.moe.dispatch import Order, carry, order_by_expert
from rec.moe.experts import Experts
from rec.moe.health import Usage
from rec.moe.ranks import ALONE, BatchRanks, Later
from rec.moe.routing import Routing
from rec.moe.step import StepCounts
from rec.terms import Term

Carry = Callable[[Tensor, Tensor, Order, Experts], Tensor]
"""From rows (N, D), weights (N, K), their order and the experts to the mixed rows (N, D)."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """What a layer gives."""

    y_ND: Tensor
    routing: Routing
    order: Order
    seen: Later
    """What begins with the assignments of each expert, float64: see `count_E`."""

    @property
    def count_E(self) -> Tensor:
        """Assignments of each expert, float64: in the whole step while training, else in this worker's batch."""
        return self.seen()[: self.routing.probability_NE.shape[1]]

    def balance_term(self, weight: float) -> Term:
        """Return the load balance loss of the global batch; 1 is even use."""
        return Term(balance(self.routing, self.count_E), len(self.y_ND), weight)

    def z_term(self, weight: float) -> Term:
        """Return the router z-loss, for routers with scores."""
        assert self.routing.score_NE is not None, "this router has no scores"
        return Term(router_z(self.routing.score_NE), len(self.y_ND), weight)

    def entropy_term(self, weight: float) -> Term:
        """Return the mean entropy of decisions in nats: a weight above 0 makes them surer, below 0 softer."""
        return Term(decision_entropy(self.routing.probability_NE), len(self.y_ND), weight)


class MixtureOfExperts(nn.Module):
    """Routed experts, beside experts that every row passes where `shared` is given.

    `capacity_factor` limits each expert, while training, to that multiple of an even share of the assignments in the
    batch of all workers; 0 drops nothing. The router sees the first `gate_width` columns of a row, 0 all of them.
    `scale` multiplies what the routed experts give.

    A backend that spreads experts or rows over workers sets `carry`, `ranks` and `counting` (False for a batch that
    is repeated only to keep step with other workers, and counts nowhere). Where all workers pass the same rows
    (`rec.nn.replicated`), `replicated` is set: each has all experts, and rows are no examples of a batch. Where
    activations are computed again in a backward, `repeating` is set meanwhile: what has been counted stays as it is.
    Where only who calls the layer knows which example each row of the next pass is of (`Batch.owners` cannot tell),
    that is told by `owner_N`, empty for rows of no example.
    """

    def __init__(
        self,
        router: nn.Module,
        experts: Experts,
        *,
        shared: nn.Module | None = None,
        capacity_factor: float = 0.0,
        gate_width: int = 0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.gate_width, self.scale = gate_width, scale
        self.router, self.experts, self.shared = router, experts, shared
        self.num_experts, self.capacity_factor = experts.num_experts, capacity_factor
        self.carry: Carry = carry
        self.ranks: BatchRanks = ALONE
        self.counting = True
        self.replicated = False
        self.repeating = False
        self.owner_N: Tensor | None = None
        self.usage, self.whole = Usage(self.num_experts), StepCounts()

    def forward(self, x_ND: Tensor | Mixed, *hints: Tensor) -> Mixed:
        """Return the mixed rows, (N, D), with the routing they come from; `hints` go to the router.

        What was mixed elsewhere passes as it is: who listens to this layer hears of it too.
        """
        if isinstance(x_ND, Mixed):
            return x_ND
        routing: Routing = self.router(x_ND[:, : self.gate_width] if self.gate_width else x_ND, *hints)
        if self.training and (self.capacity_factor or not self.repeating):
            seen = self.ranks.sum_later(self.usage.observe(routing, assignments(routing)) * float(self.counting))
            capacity = 0
            if self.capacity_factor:
                even = float(seen()[self.num_experts]) * routing.expert_NK.shape[1] / self.num_experts
                capacity = max(1, int(self.capacity_factor * even))
            order = order_by_expert(routing, self.num_experts, capacity, self.ranks, self.counting)
            if not self.repeating:
                self.usage.add(seen, order.dropped)
                seen = self.whole.of(seen)
        else:
            order = order_by_expert(routing, self.num_experts)
            seen = Later(value=order.count_E.double())
        weight_NK = routing.weight_NK if self.scale == 1 else routing.weight_NK * self.scale
        y_ND = self.carry(x_ND, weight_NK, order, self.experts)
        if self.shared is not None:
            y_ND = y_ND + self.shared(x_ND)
        return Mixed(y_ND, routing, order, seen)

    def gate_counts(self, mixed: Mixed, cluster_N: Tensor, clusters: int) -> Later:
        """Return how many rows of each cluster each expert was given in the batch of all workers, float64 (C E,).

        While training, of the whole step.
        """
        count_CE = assignments_by_gate(mixed.routing, cluster_N, clusters) * float(self.counting)
        found = self.ranks.sum_later(count_CE.flatten())
        return self.whole.of(found) if self.training else found

    def gate_balance_term(
        self, mixed: Mixed, cluster_N: Tensor, clusters: int, weight: float, counts: Later | None = None
    ) -> Term:
        """Return the load balance loss of the global batch with every cluster's gate judged by itself.

        `counts` are those of `gate_counts`, where several layers ask for them before one looks.
        """
        found = self.gate_counts(mixed, cluster_N, clusters) if counts is None else counts
        count_CE = found().view(clusters, -1)
        return Term(balance_by_gate(mixed.routing, cluster_N, count_CE), len(mixed.y_ND), weight)

    def told(self) -> dict[str, float]:
        """Return what a kind of layer has to tell of its state at an evaluation, beside how experts were used."""
        return {}

    @torch.no_grad()
    def after_step(self) -> None:
        """Let a router that balances by a bias move it; called once per optimiser step."""
        rebalance = getattr(self.router, "rebalance", None)
        if rebalance is not None:
            rebalance(self.usage.last_E)


def layers_to_spread(module: nn.Module, size: int, backend: str) -> list[tuple[str, MixtureOfExperts]]:
    """Return the layers whose experts `size` workers share, with their names, empty where each worker keeps all.

    Raises:
        ConfigError: there are none, or their experts do not divide.
    """
    if size == 1 and backend == "grouped":
        return []
    layers = [(name, layer) for name, layer in layers_of(module) if not layer.replicated]
    if not layers:
        key, value = ("expert_parallel", size) if size > 1 else ("moe_backend", backend)
        raise ConfigError(f"parallel.{key}: the model has no experts to spread over workers; got {value}")
    for name, layer in layers:
        if layer.num_experts % size:
            raise ConfigError(
                f"parallel.expert_parallel: must divide the {layer.num_experts} experts of {name!r}, got {size}"
            )
    return layers


def mixed_elsewhere(layer: MixtureOfExperts, routing: Routing) -> None:
    """Let who listens to a layer hear of a routing by which others mixed, in evaluation; of outputs they hear none."""
    order = order_by_expert(routing, layer.num_experts)
    nothing_N0 = routing.weight_NK.new_zeros(len(routing.weight_NK), 0)
    layer(Mixed(nothing_N0, routing, order, Later(value=order.count_E.double())))


def layers_of(module: nn.Module) -> Iterator[tuple[str, MixtureOfExperts]]:
    """Yield the mixture layers inside a module with their names."""
    for name, layer in module.named_modules():
        if isinstance(layer, MixtureOfExperts):
            yield name, layer


@contextmanager
def routings(module: nn.Module) -> Iterator[dict[str, Routing]]:
    """Hear how each mixture layer inside a module routes the rows of the next pass, by the layer's name."""
    found: dict[str, Routing] = {}

    def hear(name: str) -> Callable[[nn.Module, Any, Mixed], None]:
        return lambda _, __, mixed: found.update({name: mixed.routing})

    handles = [layer.register_forward_hook(hear(name)) for name, layer in layers_of(module)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def is_spread(module: nn.Module) -> bool:
    """Return whether experts inside a module are spread over workers, which then all make the same calls."""
    return any(layer.carry is not carry for _, layer in layers_of(module))
