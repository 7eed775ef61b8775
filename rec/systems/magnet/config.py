"""MAGNET's keys: see rec.systems.magnet."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rec.strict import RANDOM_GATE, UNIFORM_GATE, Needs, Spaces, Strict, Twins, Variants, alike
from rec.systems.lightgcn import LightGCNConfig

ROLES = ("dominant", "balanced", "complementary")
BEHAVIOUR = "behaviour"


class RoleShares(Strict):
    """The share of an expert's anchor among its modalities; the others have equal parts of the rest."""

    dominant: float = Field(0.8, gt=0, lt=1)
    """Of a dominant expert."""
    balanced: float = Field(0.5, gt=0, lt=1)
    """Of a balanced one."""
    complementary: float = Field(0.2, gt=0, lt=1)
    """Of a complementary one."""


class TriggerConfig(Strict):
    """When training turns from coverage of all experts to specialisation."""

    NEEDS: ClassVar[Needs] = {
        **alike(("threshold", "window", "smoothing", "warmup"), {"kind": ["entropy"]}),
        "step": {"kind": ["fixed_step"]},
    }

    SPACES: ClassVar[Spaces] = {
        "trigger": {
            "threshold": {"choice": [0.85, 0.9, 0.95]},
            "window": {"choice": [20, 50, 100, 200, 500]},
        }
    }

    kind: Literal["entropy", "fixed_step"] = "entropy"
    """After `window` steps in a row whose smoothed entropy of use is above the threshold, or after `step` steps."""
    threshold: float = Field(0.95, gt=0, lt=1)
    """Of the entropy, as a share of that of even use."""
    window: int = Field(100, ge=1)
    """Steps in a row above it."""
    warmup: int = Field(100, ge=0)
    """Steps that do not count."""
    step: int = Field(1000, ge=0)
    """Of a fixed step."""
    ramp: int = Field(200, ge=1)
    """Steps over which the weights move to those of specialisation."""
    smoothing: float = Field(0.9, ge=0, lt=1)
    """Share of the entropy so far in the smoothed one of a step."""


class MagnetConfig(LightGCNConfig):
    """Keys of `[model]`."""

    NEEDS: ClassVar[Needs] = {
        **alike(("gamma", "pseudo"), {"view": ["joint"]}),
        "pseudo_weight": {"view": ["joint"], "pseudo": {"not": [0]}},
        **alike(("per_pair", "shared", "kappa"), {"mixture": ["on", "random"]}),
        "noise": {"mixture": ["on"]},
        **alike(
            ("coverage_weight", "confidence_weight", "z_weight", "trigger"),
            {"mixture": ["on"], "routing_terms": [True]},
        ),
        "routing_terms": {"mixture": ["on"]},
        **alike(("contrast_nodes", "temperature"), {"contrast_weight": {"not": [0.0]}}),
    }

    SPACES: ClassVar[Spaces] = {
        "model": {
            "layers": {"choice": [1, 2, 3]},
            "edge_dropout": {"choice": [0.0, 0.5, 0.8, 0.9]},
            "regularisation": {"log": [1e-5, 1e-2]},
            "contrast_weight": {"choice": [0.0, 0.001, 0.01, 0.1]},
            "per_pair": {"choice": [1, 2, 3, 4]},
        },
        "router": {
            "coverage_weight": {"log": [0.01, 1.0]},
            "confidence_weight": {"log": [0.01, 0.1]},
        },
    }
    VARIANTS: ClassVar[Variants] = {
        "full": (),
        "no routing terms": ("model.routing_terms=false",),
        "no view contrast": ("model.contrast_weight=0.0",),
        "fixed-step switch": ("model.trigger.kind=fixed_step",),
        "free templates": ("model.templates=free",),
        "no mixture": ("model.mixture=off",),
    }

    edge_dropout: float = Field(0.8, ge=0, lt=1)
    """Share of the interactions that an epoch does without, popular ones first; evaluation uses all."""
    content: dict[str, float] = {"image": 0.1, "text": 0.9}
    """Weights of content graphs, by name."""
    regularisation: float = Field(1e-4, ge=0)
    """Weight of half the squared norms of a pair's three table rows."""
    modalities: tuple[str, ...] = ("image", "text")
    """Streams beside behaviour; each has vectors (`feature_NAME`) and a graph (`graph_NAME`)."""
    view: Literal["late", "joint"] = "late"
    """Content is added after propagation (FREEDOM), or its edges are propagated with the interactions."""
    gamma: float = Field(0.5, ge=0)
    """Weight of content edges in the joint view ..."""
    pseudo: int = Field(10, ge=0)
    """... and how many items that each user has not, most like those of theirs, join it as well ..."""
    pseudo_weight: float = Field(0.2, ge=0)
    """... with this weight; 0 leaves them out."""
    streams: Literal["gate", "feat"] = "gate"
    """A modality's stream is the item's own vector, gated by the modality (MGCN), or its projected vector."""
    roles: RoleShares = RoleShares()
    templates: Literal["fixed", "free"] = "fixed"
    """Free experts weigh modalities as they learn to, from the templates on."""
    expert: Literal["template", "mlp"] = "template"
    """Experts are their templates, or have a layer of their own on top."""
    mixture: Literal["on", "random", "off"] = "on"
    """Off takes the mean of all experts; as a control, a router that stays as it was drawn."""
    per_pair: int = Field(2, ge=1)
    """Experts of each (user, item) pair."""
    mixture_weight: float = Field(1.0, gt=0)
    """Weight of the mixture's score beside the behaviour streams'."""
    shared: float = Field(0.0, ge=0, lt=1)
    """Share of the mean of all experts in the mixture's score; the rest is the routed experts'."""
    kappa: float = Field(10.0, gt=0)
    """Scale of the router's scores, which are sums of products of unit vectors."""
    base_residual: bool = True
    """Adds the score of the behaviour streams alone."""
    routing_terms: bool = True
    """Coverage, confidence and the trigger's noise; off leaves noise that ends at a fixed step."""
    trigger: TriggerConfig = TriggerConfig()
    noise: float = Field(0.5, ge=0)
    """Standard deviation of what is added to the router's scores in training, falling to 0 in specialisation."""
    coverage_weight: float = Field(0.1, ge=0)
    """Falls to a tenth in specialisation."""
    confidence_weight: float = Field(0.02, ge=0)
    """Rises from 0 in specialisation."""
    z_weight: float = Field(0.0, ge=0)
    """Weight of the router z-loss."""
    contrast_weight: float = Field(0.001, ge=0)
    """Of the contrast between a node's two views."""
    contrast_nodes: int = Field(0, ge=0)
    """Users, and items, of a step that are contrasted at most: time grows with their square; 0 takes all."""
    temperature: float = Field(0.2, gt=0)
    """Of the contrast."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        experts = len(ROLES) * (1 + len(self.modalities))
        if self.per_pair > experts:
            raise ValueError(f"per_pair: at most the {experts} experts, got {self.per_pair}")
        if not self.modalities:
            raise ValueError("modalities: at least one beside behaviour")
        if self.content_form != type(self).model_fields["content_form"].default:
            raise ValueError("content_form: has no effect here: edges of content are weighed by both ends' degrees")
        if self.features:
            raise ValueError("features: name modalities instead")
        return self

    def twins(self, at: str) -> Twins:
        """Return what routing is held against: templates have no width, so the mean of all experts is the dense one."""
        if self.mixture != "on":
            return {}
        return {RANDOM_GATE: (f"{at}.mixture=random",), UNIFORM_GATE: (f"{at}.mixture=off",)}

    @property
    def mapped(self) -> bool:
        """Whether interactions stay in files: not where pseudo edges are sought among all of them."""
        return self.fanout > 0 and not (self.view == "joint" and self.pseudo and self.pseudo_weight)

    @property
    def streams_of(self) -> tuple[str, ...]:
        """Names of all streams, behaviour first."""
        return (BEHAVIOUR, *self.modalities)

    def experts(self) -> tuple[str, ...]:
        """Return the names of all experts, role by role within an anchor."""
        return tuple(f"{anchor}-{role}" for anchor in self.streams_of for role in ROLES)
