"""Experts gated by cluster in the place of a language model's feed-forward networks.

Letters: B texts, T positions, N tokens that are no padding, D width, F hidden width, E experts, C clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from rec.errors import ConfigError
from rec.moe.experts import FeedForwardExperts, without_output
from rec.moe.layer import Mixed, MixtureOfExperts
from rec.moe.routers import ClusterRouter, SoftClusterRouter
from rec.nn.language.causal import decoder_layers
from rec.sections import counted
from rec.seeds import derive
from rec.strict import RANDOM_GATE, UNIFORM_GATE, Needs, Spaces, Strict, Twins, alike
from rec.terms import Term

ALIGNED = 128
"""Widths of experts above it are multiples of it."""


class GatedConfig(Strict):
    """Gated experts in the layers of a language model."""

    NEEDS: ClassVar[Needs] = {
        **alike(("layers", "fine", "shared", "init", "gates", "router"), {"experts": {"not": [0]}}),
        "per_row": {"experts": {"not": [0]}, "router": {"not": ["uniform"]}},
        "balance_weight": {"experts": {"not": [0]}, "router": ["softmax"]},
        "soft_gate": {"experts": {"not": [0]}, "gates": ["cluster"]},
    }
    SPACES: ClassVar[Spaces] = {
        "experts": {
            "experts": {"choice": [2, 4, 8]},
            "fine": {"choice": [1, 2, 4]},
            "per_row": {"choice": [1, 2]},
            "balance_weight": {"choice": [0.0, 0.001, 0.01]},
        }
    }

    experts: int = Field(4, ge=0)
    """Experts as wide as the feed-forward network that they replace, before they are split finer; 0 keeps that one."""
    fine: int = Field(1, ge=1)
    """Splits every expert into so many of a fraction of its width."""
    per_row: int = Field(2, ge=1)
    """Experts of each token, of those after the split."""
    layers: tuple[int, ...] = ()
    """Layers with experts, the first is 0; empty is all."""
    shared: Literal["none", "dense"] = "none"
    """"dense" keeps the network that experts replace, beside them, for every token."""
    init: Literal["sliced", "random"] = "random"
    """"sliced" starts as the network that is replaced: every expert is a slice of it, and even gates over all of them
    give what it gives; beside a network that is kept, experts add nothing at first. "random" starts anew, as
    published."""
    gates: Literal["cluster", "one", "random"] = "cluster"
    """A gate per cluster; one for all; or, as a control, as many as clusters, with pairs given to them at random but in
    the same numbers."""
    router: Literal["softmax", "random", "uniform"] = "softmax"
    """Gates learn; or, as controls, stay as they were drawn, or give all experts the same weight."""
    soft_gate: bool = False
    """Scores of all gates summed by how far the pair belongs to each, in the place of the likeliest one's."""
    balance_weight: float = Field(0.0, ge=0)
    """Weight of the load balance loss of every gate by itself; published is 0."""

    @model_validator(mode="after")
    def _experts_are_enough(self) -> Self:
        if self.experts and self.per_row > self.total:
            raise ValueError(f"per_row: must be at most experts * fine = {self.total}, got {self.per_row}")
        return self

    @property
    def total(self) -> int:
        """Experts of a layer after the split."""
        return self.experts * self.fine

    @property
    def of_row(self) -> int:
        """Experts of each token, after the split."""
        return self.total if self.router == "uniform" else self.per_row

    def twins(self, at: str) -> Twins:
        """Return the same experts under gates that are all one, do not learn, or follow nothing."""
        if not self.experts or self.router != "softmax":
            return {}
        found: Twins = {RANDOM_GATE: (f"{at}.router=random",), UNIFORM_GATE: (f"{at}.router=uniform",)}
        return found | ({"one gate": (f"{at}.gates=one",)} if self.gates == "cluster" else {})

    def others(self, at: str) -> Twins:
        """Return half and twice as many experts, as long as there are enough for a token."""
        sizes = (self.experts // 2, self.experts * 2)
        enough = [size for size in sizes if size and size * self.fine >= self.of_row]
        return {f"{counted(size, 'expert')}": (f"{at}.experts={size}",) for size in enough}


@dataclass(slots=True)
class GateContext:
    """What the gated layers of a model are told of the present forward, and what they leave behind.

    It holds until the next forward, because layers that keep no activations compute again in the backward.
    """

    kept_BT: Tensor | None = None
    """Tokens that are no padding, bool; no others reach experts."""
    hint_N: Tensor | None = None
    """The gate of each of them, int64 (N,), or how far it belongs to each, float (N, C)."""
    owner_N: Tensor | None = None
    """The text of each of them, empty where that is not told; None: what the batch says (`Batch.owners`)."""
    mixed: dict[int, Mixed] = field(default_factory=dict)
    """What each layer has decided, by its place among the gated ones; rows of `y_ND` are left empty."""

    def start(self, kept_BT: Tensor, hint_N: Tensor, owner_N: Tensor | None = None) -> None:
        """Begin a forward."""
        self.kept_BT, self.hint_N, self.owner_N, self.mixed = kept_BT, hint_N, owner_N, {}


class GatedFeedForward(nn.Module):
    """A mixture layer in the place of a feed-forward network on (B, T, D)."""

    def __init__(self, mixture: MixtureOfExperts, context: GateContext, number: int) -> None:
        super().__init__()
        self.mixture, self.context, self.number = mixture, context, number

    def forward(self, state_BTD: Tensor) -> Tensor:
        """Return what experts make of tokens, 0 for padding; each token's depends on itself and its gate alone."""
        kept_BT, hint_N, done = self.context.kept_BT, self.context.hint_N, self.context.mixed
        assert kept_BT is not None, "the context of the gates is set before every forward"
        assert hint_N is not None
        self.mixture.repeating, self.mixture.owner_N = self.number in done, self.context.owner_N
        mixed: Mixed = self.mixture(state_BTD[kept_BT], hint_N)
        self.mixture.repeating = False
        # Who balances needs to know where tokens went, not what came of them, which is large.
        done.setdefault(self.number, replace(mixed, y_ND=mixed.y_ND.detach()[:, :0].clone()))
        return torch.zeros_like(state_BTD).masked_scatter(kept_BT[..., None], mixed.y_ND.to(state_BTD.dtype))


def gate_layers(
    model: Any, config: GatedConfig, clusters: int, seed: int
) -> tuple[list[MixtureOfExperts], GateContext]:
    """Replace the feed-forward networks of a model's layers in place; return the mixtures and their common context.

    Raises:
        ConfigError: a layer does not exist, or what is to be sliced is no SwiGLU of three matrices.
    """
    context = GateContext()
    found: list[MixtureOfExperts] = []
    if not config.experts:
        return found, context
    layers = decoder_layers(model)
    chosen = config.layers or tuple(range(len(layers)))
    for number, place in enumerate(chosen):
        if not 0 <= place < len(layers):
            raise ConfigError(f"model.experts.layers: no layer {place}; the model has {len(layers)}, the first is 0")
        layer: Any = layers[place]
        mixture = _mixture(model, layer.mlp, config, clusters, derive(seed, "gated", place))
        like = next(layer.mlp.parameters())
        layer.mlp = GatedFeedForward(mixture.to(like.dtype), context, number)
        found.append(mixture)
    return found, context


def _mixture(model: Any, dense: nn.Module, config: GatedConfig, clusters: int, seed: int) -> MixtureOfExperts:
    width, hidden = model.config.hidden_size, model.config.intermediate_size
    gates = 1 if config.gates == "one" else clusters
    kind = SoftClusterRouter if config.soft_gate and config.gates == "cluster" else ClusterRouter
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "gates"))
        router = kind(width, gates, config.total, config.of_row)
        if config.router == "uniform":
            nn.init.zeros_(router.weight_CDE)
        router.requires_grad_(config.router == "softmax")
    part = expert_width(hidden, config.fine)
    experts = FeedForwardExperts(width, part, config.total, activation="swiglu", seed=seed)
    keeps = config.shared == "dense"
    if config.init == "sliced":
        if keeps:
            experts.start(without_output)
        else:
            slice_into(experts, dense, config.fine)
    # Weights of a token add up to 1: with even ones over all experts, slices then add up to the mean of whole networks.
    scale = float(config.fine) if config.init == "sliced" else 1.0
    return MixtureOfExperts(router, experts, shared=dense if keeps else None, scale=scale)


def expert_width(hidden: int, fine: int) -> int:
    """Return the hidden width of an expert: a fraction rounded up, to a multiple of 128 above 128.

    14,336 in 12 parts are 1,280 each, as published; 512 in 4 are 128.
    """
    part = -(-hidden // fine)
    return part if part <= ALIGNED else -(-part // ALIGNED) * ALIGNED


def slice_into(experts: FeedForwardExperts, dense: nn.Module, fine: int) -> None:
    """Give expert e the neurons of slice e modulo `fine` of a dense SwiGLU network.

    All slices together with weight 1 are that network. Neurons beyond its last have their own first weights and add
    nothing, so that they can learn.

    Raises:
        ConfigError: it is no such network.
    """
    named: list[Any] = [getattr(dense, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    activation = type(getattr(dense, "act_fn", None)).__name__
    maps = [part for part in named if isinstance(part, nn.Linear) and part.bias is None]
    if len(maps) < 3 or activation not in ("SiLU", "SiLUActivation"):
        raise ConfigError(
            "model.experts.init: 'sliced' needs feed-forward networks of gate_proj, up_proj and down_proj without "
            f"biases under SiLU; {type(dense).__name__} has {activation}; use 'random'"
        )
    experts.start(partial(_take_slices, maps=maps, fine=fine))


def _take_slices(experts: FeedForwardExperts, maps: Sequence[nn.Linear], fine: int) -> None:
    width, hidden = experts.down_EFD.shape[1], maps[0].out_features
    for place in range(experts.num_experts):
        first = (experts.first + place) % fine * width
        size = max(0, min(width, hidden - first))
        rows = slice(first, first + size)
        experts.up_EDF[place, :, :size] = maps[0].weight[rows].T.to(experts.up_EDF)
        experts.up_EDF[place, :, width : width + size] = maps[1].weight[rows].T.to(experts.up_EDF)
        experts.down_EFD[place] = 0
        experts.down_EFD[place, :size] = maps[2].weight[:, rows].T.to(experts.down_EFD)


def balance_terms(
    layers: Sequence[MixtureOfExperts], mixed: Sequence[Mixed], gate_N: Tensor, weight: float
) -> dict[str, Term]:
    """Return the load balance loss of each layer, every gate judged by its own tokens; nothing where it weighs 0."""
    if not weight:
        return {}
    routers: list[Any] = [layer.router for layer in layers]
    asked = [(layer, one, router.gates) for layer, one, router in zip(layers, mixed, routers, strict=True)]
    counted = [layer.gate_counts(one, gate_N, gates) for layer, one, gates in asked]
    return {
        f"balance/{number}": layer.gate_balance_term(one, gate_N, gates, weight, counts)
        for number, ((layer, one, gates), counts) in enumerate(zip(asked, counted, strict=True))
    }


def shuffled_gates(user_B: Tensor, item_B: Tensor, share_C: Tensor, seed: int) -> Tensor:
    """Return a gate for each pair that follows from the pair alone and not from what it is, int64 (B,).

    The control of what clusters are worth: as many gates, used by the same shares of pairs.
    """
    pairs = zip(user_B.tolist(), item_B.tolist(), strict=True)
    drawn = [derive(seed, "gate", user, item) / 2**63 for user, item in pairs]
    edge_C = share_C.double().cumsum(0) / share_C.double().sum()
    place_B = torch.tensor(drawn, dtype=torch.float64, device=share_C.device)
    return torch.searchsorted(edge_C, place_B, right=True).clamp(max=len(share_C) - 1)
