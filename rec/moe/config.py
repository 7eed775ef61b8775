"""The keys by which any system gets a mixture-of-experts layer."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import nn

from rec.errors import ConfigError
from rec.moe.experts import Activation, FeedForward, fine_grained, without_output
from rec.moe.layer import Mixed, MixtureOfExperts
from rec.moe.routers import RandomRouter, SigmoidRouter, SoftmaxRouter, UniformRouter
from rec.sections import counted
from rec.strict import RANDOM_GATE, UNIFORM_GATE, Needs, Spaces, Strict, Twins, alike
from rec.terms import Term

LOSS_TERMS = {
    "balance/*": "how unevenly experts are used, 1 is even",
    "router_z/*": "size of the router's scores",
}
"""What the parts of a loss are that `terms` names, for a system's `loss_terms`."""


class MixtureConfig(Strict):
    """A mixture of feed-forward experts."""

    NEEDS: ClassVar[Needs] = {
        **alike(
            ("fine", "shared", "zero_start", "activation", "router", "capacity_factor", "routed_scale"),
            {"experts": {"not": [0]}},
        ),
        "per_row": {"experts": {"not": [0]}, "router": {"not": ["uniform"]}},
        **alike(("noise", "balance_weight", "z_weight"), {"experts": {"not": [0]}, "router": ["softmax"]}),
        "bias_rate": {"experts": {"not": [0]}, "router": ["sigmoid"]},
    }

    SPACES: ClassVar[Spaces] = {
        "experts": {
            "experts": {"choice": [2, 4, 8, 16]},
            "per_row": {"choice": [1, 2]},
            "fine": {"choice": [1, 2, 4]},
            "shared": {"choice": [False, True]},
            "activation": {"choice": ["gelu", "swiglu"]},
        },
        "router": {
            "router": {"choice": ["softmax", "sigmoid"], "when": {"experts": {"not": [0]}}},
            "balance_weight": {"log": [1e-4, 1e-1], "when": {"router": ["softmax"]}},
            "z_weight": {"log": [1e-5, 1e-2], "when": {"router": ["softmax"]}},
            "noise": {"choice": [False, True], "when": {"router": ["softmax"]}},
            "bias_rate": {"log": [1e-4, 1e-2], "when": {"router": ["sigmoid"]}},
            "capacity_factor": {"choice": [0.0, 1.0, 1.25, 2.0], "when": {"experts": {"not": [0]}}},
        },
    }

    experts: int = Field(0, ge=0)
    """Experts before they are split finer; 0 is one plain network for all rows."""
    per_row: int = Field(2, ge=1)
    """Experts of each row, before they are split finer."""
    fine: int = Field(1, ge=1)
    """Splits every expert into so many of a fraction of its width, and takes as many times more per row."""
    shared: bool = False
    """Beside the routed experts, one that every row passes."""
    zero_start: bool = False
    """Lets routed experts add nothing at first (their last weights start at 0): with `shared`, what all rows have in
    common is learned by one network before what differs."""
    activation: Activation = "gelu"
    """Between an expert's two layers; swiglu has a gate beside them."""
    router: Literal["softmax", "sigmoid", "random", "uniform"] = "softmax"
    """Softmax with a loss for balance, or sigmoid whose bias balances without one; or, as controls, a softmax gate that
    stays as it was drawn, or equal weights for all experts."""
    noise: bool = False
    """Learned noise on the softmax scores while training."""
    bias_rate: float = Field(1e-3, gt=0)
    """How far the sigmoid router's bias moves per step."""
    capacity_factor: float = Field(0.0, ge=0)
    """Limit of each expert's rows as a multiple of an even share; 0 drops nothing."""
    balance_weight: float = Field(0.01, ge=0)
    """Weight of the load balance loss (softmax only)."""
    routed_scale: float = Field(1.0, gt=0)
    """Multiplies what routed experts give; as many as there are per row makes even weights the sum of the experts."""
    z_weight: float = Field(0.0, ge=0)
    """Weight of the router z-loss (softmax only)."""

    @model_validator(mode="after")
    def _enough_experts(self) -> Self:
        if self.experts and self.per_row > self.experts:
            raise ValueError(f"per_row: at most the {self.experts} experts, got {self.per_row}")
        return self

    def layer(self, width: int, hidden: int, seed: int, out: int = 0, gate_width: int = 0) -> MixtureOfExperts:
        """Return the layer for rows of a width, each expert with a hidden width before it is split.

        `out` is the width of what comes out, 0 that of the rows; the gate sees the first `gate_width` columns, 0 all.

        Raises:
            ConfigError: the hidden width does not split.
        """
        try:
            experts = fine_grained(
                width, hidden, self.experts, self.fine, out=out, activation=self.activation, seed=seed
            )
        except ValueError as error:
            raise ConfigError(f"fine: {error}") from error
        if self.zero_start:
            experts.start(without_output)
        count, k = self.experts * self.fine, self.of_row * self.fine
        seen = gate_width or width
        router = self._router(seen, count, k)
        shared = FeedForward(width, hidden, out=out, activation=self.activation, seed=seed) if self.shared else None
        return MixtureOfExperts(
            router,
            experts,
            shared=shared,
            capacity_factor=self.capacity_factor,
            gate_width=gate_width,
            scale=self.routed_scale,
        )

    def _router(self, width: int, experts: int, k: int) -> nn.Module:
        if self.router == "sigmoid":
            return SigmoidRouter(width, experts, k, rate=self.bias_rate)
        if self.router == "random":
            return RandomRouter(width, experts, k)
        if self.router == "uniform":
            return UniformRouter(width, experts)
        return SoftmaxRouter(width, experts, k, noise=self.noise)

    @property
    def of_row(self) -> int:
        """Experts of each row, before they are split finer."""
        return self.experts if self.router == "uniform" else self.per_row

    @property
    def active(self) -> int:
        """Networks of the whole hidden width that a row passes."""
        return self.of_row + self.shared

    @property
    def total(self) -> int:
        """Networks of the whole hidden width that there are."""
        return self.experts + self.shared

    def one(self, at: str) -> tuple[str, ...]:
        """Return overrides that leave one expert, which every row passes with weight 1: a dense network of its kind."""
        alone = {"experts": 1, "per_row": 1, "fine": 1, "shared": "false", "zero_start": "false"}
        alone |= {"router": "softmax", "capacity_factor": 0.0, "routed_scale": 1.0}
        return tuple(f"{at}.{key}={value}" for key, value in alone.items())

    def twins(self, at: str) -> Twins:
        """Return the same experts without a gate that learns."""
        if not self.experts or self.router in ("random", "uniform"):
            return {}
        return {twin: (f"{at}.router={kind}",) for twin, kind in ((RANDOM_GATE, "random"), (UNIFORM_GATE, "uniform"))}

    def others(self, at: str) -> Twins:
        """Return half and twice as many experts, as long as there are enough for a row."""
        if not self.experts or self.router == "uniform":
            return {}
        sizes = [size for size in (self.experts // 2, self.experts * 2) if size >= self.per_row]
        return {f"{counted(size, 'expert')}": (f"{at}.experts={size}",) for size in sizes}

    def terms(self, mixed: list[Mixed]) -> dict[str, Term]:
        """Return the loss terms that keep the routers of these layers in order."""
        if self.router != "softmax":
            return {}
        terms: dict[str, Term] = {}
        for number, one in enumerate(mixed):
            if self.balance_weight:
                terms[f"balance/{number}"] = one.balance_term(self.balance_weight)
            if self.z_weight:
                terms[f"router_z/{number}"] = one.z_term(self.z_weight)
        return terms
