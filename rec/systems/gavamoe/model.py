"""GaVaMoE's model: pairs, the prior of their latents, and what follows from both.

Letters: B pairs, U users, C clusters, Z width of a latent, R levels of ratings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rec.systems.gavamoe.batch import ReviewBatch
from rec.systems.gavamoe.config import GaVaMoEConfig
from rec.systems.gavamoe.mixture import GaussianMixturePrior
from rec.systems.gavamoe.pairs import PairEncoder

VAE, MIXTURE = "vae", "mixture"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the model is made for: who and what there is, and how ratings are spread."""

    user_count_U: Tensor
    """Reviews of training of each user."""
    item_count_I: Tensor
    level_R: Tensor
    """Every rating, ascending."""
    level_count_R: Tensor
    """Reviews of training with each."""
    features: Mapping[str, Tensor]
    """Further vectors of items, (I, M) each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What stage 1 makes of a batch; what the phase does not use is None."""

    score_BR: Tensor
    """Of each level of the rating."""
    kl_B: Tensor | None = None
    """Divergence of the latent from the prior."""


class GaVaMoEModel(nn.Module):
    """Encoder of pairs and the mixture of their latents."""

    phase = ""
    """The phase of training, empty where all of it counts."""
    epoch = 0
    """Of the phase."""

    def __init__(self, config: GaVaMoEConfig, known: Known, seed: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.reviews = int(known.user_count_U.sum())
        seen = {"user": known.user_count_U > 0, "item": known.item_count_I > 0}
        levels = len(known.level_R)
        self.pairs = PairEncoder(
            config.pairs, len(seen["user"]), len(seen["item"]), known.features, seed, levels=levels, seen=seen
        )
        self.prior = GaussianMixturePrior(config.pairs.clusters, config.pairs.latent)
        self.level_R: Tensor
        self.register_buffer("level_R", known.level_R.float(), persistent=False)
        share_R = (known.level_count_R + 1) / (known.level_count_R + 1).sum()
        mean = (share_R * known.level_R).sum()
        spread = (share_R * (known.level_R - mean).square()).sum().sqrt().clamp(min=1e-6)
        self.step_R: Tensor
        """Levels by how far they are from the mean rating, in standard deviations."""
        self.register_buffer("step_R", ((known.level_R - mean) / spread).float(), persistent=False)
        last = self.pairs.decoder[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(share_R.log())

    def forward(self, batch: ReviewBatch) -> Encoded:
        """Return what the phase needs of a batch: in `vae` the latent is its mean, in `mixture` training draws it."""
        latent = self.pairs(batch.user_B, batch.item_B)
        if self.phase == VAE:
            return Encoded(score_BR=self.scores(latent.mean_BZ, batch))
        z_BZ = latent.drawn() if self.training else latent.mean_BZ
        return Encoded(score_BR=self.scores(z_BZ, batch), kl_B=self.prior.kl(latent, z_BZ))

    def scores(self, z_BZ: Tensor, batch: ReviewBatch) -> Tensor:
        """Return the score of each level of the rating, (B, R)."""
        score_BR = self.pairs.rating_scores(z_BZ)
        if not self.config.pairs.biases:
            return score_BR
        return score_BR + self.pairs.bias(batch.user_B, batch.item_B)[:, None] * self.step_R

    def ratings(self, batch: ReviewBatch) -> Tensor:
        """Return the expected rating of each pair, (B,)."""
        mean_BZ = self.pairs(batch.user_B, batch.item_B).mean_BZ
        return self.scores(mean_BZ, batch).float().softmax(1) @ self.level_R.float()

    def responsibilities(self, batch: ReviewBatch) -> Tensor:
        """Return how probable each cluster is of each pair, (B, C); of strangers, how probable it is of any pair."""
        own_BC = self.prior.responsibility(self.pairs(batch.user_B, batch.item_B).mean_BZ)
        strange_B = self.pairs.strange(batch.user_B, batch.item_B)
        return torch.where(strange_B[:, None], self.prior.log_weight().exp(), own_BC)

    def clusters(self, batch: ReviewBatch) -> Tensor:
        """Return the cluster of each pair, int64 (B,): the most probable one by the latent's mean."""
        return self.responsibilities(batch).argmax(1)
