"""GaVaMoE's keys: see rec.systems.gavamoe."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from rec.nn.language.config import LanguageConfig
from rec.nn.language.gated import GatedConfig, expert_width
from rec.strict import DENSE_ACTIVE, DENSE_TOTAL, Needs, Spaces, Strict, Twins, Variants
from rec.systems.gavamoe.prompt import PairPromptConfig

PAPER_BETA, PAPER_BETA_STEP, PAPER_BETA_MOST, PAPER_BETA_EPOCHS = 0.01, 0.005, 0.1, 5
"""The published schedule of beta: what it starts with, grows by and ends at, and the epochs between."""


class PairsConfig(Strict):
    """Keys of stage 1: the autoencoder of pairs of user and item, and the mixture that is its prior."""

    SPACES: ClassVar[Spaces] = {
        "pairs": {
            "clusters": {"choice": [2, 3, 4, 5, 8]},
            "latent": {"choice": [8, 16, 32]},
            "embedding": {"choice": [16, 32, 64]},
            "beta": {"log": [1e-5, 1e-2]},
            "dropout": {"uniform": [0.0, 0.5]},
            "words": {"choice": [0, 500, 2000]},
            "unknown_share": {"uniform": [0.0, 0.3]},
        }
    }

    clusters: int = Field(4, ge=1)
    """Components of the mixture, each a cluster of pairs with a gate of its own."""
    latent: int = Field(16, ge=1)
    """Width of a pair's latent."""
    embedding: int = Field(64, ge=1)
    """Width of a user's and of an item's vector."""
    layers: int = Field(2, ge=0)
    """Layers of attention between the vectors of a pair."""
    heads: int = Field(4, ge=1)
    """Heads of that attention; divides `embedding`."""
    hidden: int = Field(128, ge=1)
    """Of the layers' feed-forward networks and of the decoder's first layer."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """In the layers and of the vectors of users and items."""
    unknown_share: float = Field(0.1, ge=0, lt=1)
    """Share of users and of items that training takes for unknown, so that there is a vector for those who are."""
    item_vectors: tuple[str, ...] = ()
    """Modalities of items that are looked at beside their ids: `text` reads the table `item_text`, any other NAME the
    table `feature_NAME`."""
    biases: bool = True
    """Adds a bias of the user and of the item to the predicted rating, beside what the latent tells of it."""
    words: int = Field(0, ge=0)
    """Most frequent words of training's texts that a pair's latent tells beside the rating, as a bag in any order, so
    that clusters are also of what is written; 0 is as published: of ratings alone."""
    words_weight: float = Field(1.0, ge=0)
    """Of a word's cross entropy beside that of a rating."""
    beta: float = Field(1e-4, ge=0)
    """Weight of the divergence from the prior beside a cross entropy of 1 (published: 0.01 / 1536)."""
    beta_schedule: bool = False
    """Lets beta grow by half of itself every 5 epochs, to ten times itself at most, as published."""
    paper_scaling: bool = False
    """Multiplies the loss of the mixture's phase by a fifth of `embedding`: 0.1 * (2 * embedding * cross entropy +
    beta * divergence) in the published form, where beta is 2 * embedding times ours."""
    fit_sample: int = Field(50_000, ge=1)
    """Most pairs of training that the mixture is fitted to before its phase."""
    user_clusters: bool = False
    """Lets all pairs of a user have one cluster once stage 1 is trained: the most probable one on average over the
    user's pairs of training."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.layers and self.embedding % self.heads:
            raise ValueError(f"embedding: must be a multiple of {self.heads} heads, got {self.embedding}")
        if len(set(self.item_vectors)) < len(self.item_vectors):
            raise ValueError(f"item_vectors: {', '.join(self.item_vectors)} names one twice")
        return self

    NEEDS: ClassVar[Needs] = {"heads": {"layers": {"not": [0]}}, "words_weight": {"words": {"not": [0]}}}

    def beta_at(self, epoch: int) -> float:
        """Return the weight of the divergence in an epoch of the mixture's phase, the first is 0.

        With the published beta of 0.01 the schedule gives 0.01 in the first five epochs, 0.015 in the next, 0.035 in
        the last of 30, and 0.1 at most.
        """
        if not self.beta_schedule:
            return self.beta
        paper = min(PAPER_BETA + PAPER_BETA_STEP * (epoch // PAPER_BETA_EPOCHS), PAPER_BETA_MOST)
        return self.beta * paper / PAPER_BETA

    @property
    def scale(self) -> float:
        """What the loss of the mixture's phase is multiplied by."""
        return 0.1 * 2 * self.embedding if self.paper_scaling else 1.0


def table_of(modality: str) -> str:
    """Return the table with a modality's vectors of items."""
    return "item_text" if modality == "text" else f"feature_{modality}"


class GaVaMoEConfig(Strict):
    """Keys of `[model]`."""

    VARIANTS: ClassVar[Variants] = {
        "full": (),
        "leak-free": ("model.prompt.feature=false", "model.prompt.rating=predicted"),
        "vectors of ratings alone": ("model.prompt.own_vectors=false",),
        "one cluster": ("model.pairs.clusters=1",),
        "clusters of users": ("model.pairs.user_clusters=true",),
        "clusters of ratings alone": ("model.pairs.words=0",),
        "one gate": ("model.experts.gates=one",),
        "random gates": ("model.experts.gates=random",),
        "soft gates": ("model.experts.soft_gate=true",),
        "balance": ("model.experts.balance_weight=0.01",),
    }
    SPACES: ClassVar[Spaces] = {}

    pairs: PairsConfig = PairsConfig()
    language: LanguageConfig = LanguageConfig()
    experts: GatedConfig = GatedConfig()
    prompt: PairPromptConfig = PairPromptConfig()

    def twins(self, at: str) -> Twins:
        """Return what gated experts are held against; dense ones as far as the language model is ours to widen."""
        experts, language, found = self.experts, self.language, Twins()
        if experts.experts and not language.name and experts.shared == "none" and not experts.layers:
            part = expert_width(language.hidden, experts.fine)
            for name, parts in ((DENSE_ACTIVE, experts.of_row), (DENSE_TOTAL, experts.total)):
                found[name] = (f"{at}.experts.experts=0", f"{at}.language.hidden={parts * part}")
        return found | super().twins(at)
