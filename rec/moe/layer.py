"""A mixture-of-experts layer: a router decides, a dispatch carries, experts compute."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rec.moe.dispatch import Order, dispatch
from rec.moe.experts import Experts
from rec.moe.routing import Routing


@dataclass(frozen=True, slots=True)
class Mixed:
    """What a layer gives."""

    y_ND: Tensor
    routing: Routing
    order: Order


class MixtureOfExperts(nn.Module):
    """Routed experts, beside experts that every row passes where `shared` is given.

    `capacity_factor` limits each expert to that multiple of an even share of the assignments; 0 drops nothing.
    """

    def __init__(
        self, router: nn.Module, experts: Experts, *, shared: nn.Module | None = None, capacity_factor: float = 0.0
    ) -> None:
        super().__init__()
        self.router, self.experts, self.shared = router, experts, shared
        self.capacity_factor = capacity_factor

    def forward(self, x_ND: Tensor, *hints: Tensor) -> Mixed:
        """Return the mixed rows, (N, D), with the routing they come from; `hints` go to the router."""
        routing: Routing = self.router(x_ND, *hints)
        capacity = 0
        if self.capacity_factor:
            capacity = max(1, int(self.capacity_factor * routing.expert_NK.numel() / self.experts.num_experts))
        y_ND, order = dispatch(x_ND, routing, self.experts, capacity)
        if self.shared is not None:
            y_ND = y_ND + self.shared(x_ND)
        return Mixed(y_ND, routing, order)
