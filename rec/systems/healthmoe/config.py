"""HealthMoE's keys: see rec.systems.healthmoe."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rec.json_text import json_text
from rec.moe.config import MixtureConfig
from rec.nn.encoders import ImageEncoderConfig, TextEncoderConfig
from rec.strict import DENSE_ACTIVE, DENSE_TOTAL, Needs, Spaces, Strict, Twins, Variants, alike

USER_SIDE, ITEM_SIDE = ("text", "attributes", "history"), ("text", "image", "attributes", "id")


class PairMixtureConfig(MixtureConfig):
    """A mixture with the reference design's number of experts and noise where nothing is said of them."""

    experts: int = Field(4, ge=0)
    """Experts before they are split finer; 0 is one plain network for all rows."""
    noise: bool = True
    """Learned noise on the softmax scores while training."""


class HealthMoEConfig(Strict):
    """Keys of `[model]`."""

    NEEDS: ClassVar[Needs] = {
        "text": {"encoders": ["trained"]},
        "image": {"encoders": ["trained"], "head": ["ranking"], "item": {"has": "image"}},
        "gate": {"mixture.experts": {"not": [0]}},
        **alike(("product", "loss", "negatives"), {"head": ["ranking"]}),
    }

    SPACES: ClassVar[Spaces] = {
        "model": {
            "width": {"choice": [32, 64, 128, 256]},
            "hidden": {"choice": [64, 128, 256, 512]},
            "dropout": {"uniform": [0.0, 0.4]},
            "modality_dropout": {"uniform": [0.0, 0.3]},
            "negatives": {"choice": [16, 64, 256]},
        },
        "sizes": {"mixture.experts": {"choice": [2, 4, 8]}, "mixture.per_row": {"choice": [1, 2]}},
    }
    VARIANTS: ClassVar[Variants] = {
        "full": (),
        "text only": ('model.item=["text"]',),
        "image only": ('model.item=["image"]',),
        "text + image, no mixture": ("model.mixture.experts=0",),
        "encoders and one linear layer": ("model.mixture.experts=0", "model.hidden=0"),
        "mixture on raw features": ("model.encoders=frozen",),
        "classification head": ("model.head=classification",),
        **{
            f"E {e}, {'dense' if k == e else f'top-{k}'}": (f"model.mixture.experts={e}", f"model.mixture.per_row={k}")
            for e, k in ((2, 1), (2, 2), (4, 1), (4, 4), (8, 1), (8, 2), (8, 8))
        },
    }

    user: tuple[Literal["text", "attributes", "history"], ...] = ("text", "attributes")
    """What the model sees of a user; history is the mean of the items known to be relevant."""
    item: tuple[Literal["text", "image", "attributes", "id"], ...] = ("text", "image")
    """What it sees of an item; items without a training pair have the learned missing vector in the place of an id."""
    encoders: Literal["trained", "frozen"] = "trained"
    """BERT and ViT inside the model, trained end to end, or vectors that were written when the data was prepared."""
    text: TextEncoderConfig = TextEncoderConfig()
    image: ImageEncoderConfig = ImageEncoderConfig()
    width: int = Field(256, ge=1)
    """Of each modality's projection."""
    mixture: PairMixtureConfig = PairMixtureConfig()
    """Experts on the joined projections; 0 experts is one plain network."""
    gate: Literal["pair", "user"] = "pair"
    """What the gate sees: the projections of both sides, or the user's, whose items then all pass the same experts."""
    product: bool = True
    """Joins to the projections the product of the two sides' means, from which matches are learned much sooner."""
    hidden: int = Field(512, ge=0)
    """Hidden width of an expert; a plain network has that of all experts of a row together. 0, without experts only,
    leaves one linear layer."""
    out: int = Field(256, ge=1)
    """Width of what experts give."""
    head: Literal["ranking", "classification"] = "ranking"
    """A score for each pair, also of new items, or logits over a fixed list of items from the user's side alone."""
    loss: Literal["ss", "bpr"] = "ss"
    """Softmax over a relevant item and others, or Bayesian personalised ranking."""
    negatives: int = Field(64, ge=0)
    """Items that are not relevant, drawn per user and step; 0 takes all."""
    positives: int = Field(8, ge=1)
    """Relevant items per user and step at most."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of what the mixture gives that training leaves out, before the head."""
    modality_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of texts, pictures, ... that training takes for missing, so that the model learns to do without."""

    notice: str = "not dietary or medical advice"
    """What people are told with every answer; empty where items are nothing that one eats or takes."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.user or not self.item:
            raise ValueError("user, item: at least one modality each")
        if not self.hidden and self.mixture.experts:
            raise ValueError("hidden: 0 needs mixture.experts=0")
        if "id" in self.item and not self.modality_dropout:
            raise ValueError("modality_dropout: above 0 with item ids, else nothing is learned for those of new items")
        if self.head == "classification" and "history" in self.user:
            raise ValueError("user: history looks at items, which head 'classification' does not")
        return self

    def twins(self, at: str) -> Twins:
        """Return what the experts are held against."""
        mixture = self.mixture
        if not mixture.experts:
            return {}
        widths = {DENSE_ACTIVE: mixture.active, DENSE_TOTAL: mixture.total}
        one = mixture.one(f"{at}.mixture")
        dense: Twins = {name: (*one, f"{at}.hidden={self.hidden * networks}") for name, networks in widths.items()}
        return dense | super().twins(at)

    def others(self, at: str) -> Twins:
        """Return the same without each of what is seen of users and items, beside other numbers of experts."""
        found = super().others(at)
        for side, names in (("user", self.of_users), ("item", self.of_items)):
            for name in names if len(names) > 1 else ():
                kept = json_text([other for other in names if other != name])
                found[f"without {side} {name}"] = (f"{at}.{side}={kept}",)
        return found

    def modalities(self) -> tuple[str, ...]:
        """Return the names of all modalities, users' first, in the order in which projections are joined."""
        return tuple(f"user {n}" for n in self.of_users) + tuple(f"item {n}" for n in self.of_items)

    @property
    def of_users(self) -> tuple[str, ...]:
        """Modalities of users, in order."""
        return tuple(name for name in USER_SIDE if name in self.user)

    @property
    def of_items(self) -> tuple[str, ...]:
        """Modalities of items, in order; none for a classifier, to which the target would be given away."""
        return tuple(name for name in ITEM_SIDE if name in self.item) if self.head == "ranking" else ()
