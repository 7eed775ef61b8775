"""GaVaMoE's model: pairs, the prior of their latents, and what follows from both.

Letters: B pairs, U users, C clusters, Z width of a latent, R levels of ratings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from rec.nn.language.gated import shuffled_gates
from rec.nn.language.words import NOTHING
from rec.systems.api import PhaseFeed
from rec.systems.gavamoe.batch import ReviewBatch
from rec.systems.gavamoe.config import GaVaMoEConfig
from rec.systems.gavamoe.mixture import GaussianMixturePrior
from rec.systems.gavamoe.pairs import PairEncoder
from rec.systems.gavamoe.prompt import PairPrompter, Prompt
from rec.systems.gavamoe.writer import Pairs, PairWriter, WriterOutput

VAE, MIXTURE, WRITER = "vae", "mixture", "writer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewStatistics:
    """What the model is made for: who and what there is, and how ratings are spread."""

    user_count_U: Tensor
    """Reviews of training of each user."""
    item_count_I: Tensor
    level_R: Tensor
    """Every rating, ascending."""
    level_count_R: Tensor
    """Reviews of training with each."""
    words: int
    """Different words that latents tell."""
    features: Mapping[str, Tensor]
    """Further vectors of items, (I, M) each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GaVaMoEOutput:
    """What the model makes of a batch; what the phase does not use is None."""

    score_BR: Tensor | None = None
    """Of each level of the rating."""
    kl_B: Tensor | None = None
    """Divergence of the latent from the prior."""
    word_nll_B: Tensor | None = None
    """Negative log-probability of a text's words together, in any order."""
    written: WriterOutput | None = None
    """The scores of texts."""


class GaVaMoEModel(nn.Module):
    """Encoder of pairs, the mixture of their latents, and the writer that both tell what to write."""

    phase = ""
    """The phase of training, empty where all of it counts."""
    epoch = 0
    """Of the phase."""

    def __init__(self, config: GaVaMoEConfig, known: ReviewStatistics, prompter: PairPrompter, seed: int) -> None:
        super().__init__()
        self.config, self.prompter, self.seed = config, prompter, seed
        self.reviews = int(known.user_count_U.sum())
        seen = {"user": known.user_count_U > 0, "item": known.item_count_I > 0}
        levels = len(known.level_R)
        self.pairs = PairEncoder(
            config.pairs,
            len(seen["user"]),
            len(seen["item"]),
            known.features,
            seed,
            levels=levels,
            words=known.words,
            seen=seen,
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
        self.writer = PairWriter(
            config.language,
            config.experts,
            clusters=config.pairs.clusters,
            features=config.pairs.embedding,
            tokens=prompter.tokens,
            seed=seed,
        )
        if config.prompt.own_vectors:
            sizes = {"user": len(known.user_count_U), "item": len(known.item_count_I)}
            self.own = nn.ModuleDict({n: _own(size, config.pairs.embedding) for n, size in sizes.items()})
        clusters, users = config.pairs.clusters, len(known.user_count_U)
        self.share_C: Tensor
        """Of training's pairs, by cluster."""
        self.register_buffer("share_C", torch.full((clusters,), 1 / clusters))
        self.cluster_U: Tensor
        """The cluster of each user's pairs, where it is the user's: -1 until it is known."""
        self.register_buffer("cluster_U", torch.full((users if config.pairs.user_clusters else 0,), -1))

    def forward(self, batch: ReviewBatch) -> GaVaMoEOutput:
        """Return what the phase needs of a batch: in `vae` the latent is its mean, in `mixture` training draws it."""
        if self.phase == WRITER:
            return GaVaMoEOutput(written=self.written(batch))
        latent = self.pairs(batch.user_B, batch.item_B)
        drawn = self.training and self.phase != VAE
        z_BZ = latent.drawn() if drawn else latent.mean_BZ
        return GaVaMoEOutput(
            score_BR=self.scores(z_BZ, batch),
            kl_B=None if self.phase == VAE else self.prior.kl(latent, z_BZ),
            word_nll_B=self.word_nll(z_BZ, batch) if self.config.pairs.words else None,
            written=None if self.phase else self.written(batch),
        )

    def written(self, batch: ReviewBatch) -> WriterOutput:
        """Return the scores of the texts' tokens."""
        prompt, pairs = self.asked(batch)
        found: WriterOutput = self.writer(
            prompt, pairs.user_BF, pairs.item_BF, pairs.cluster_B, pairs.share_BC, pairs.rating_B
        )
        return found

    def asked(self, batch: ReviewBatch) -> tuple[Prompt, Pairs]:
        """Return what the writer is asked: what stage 1 tells of pairs, and what the writer itself has learned of them.

        The mood of a request, which nobody has rated, follows from the predicted rating.
        """
        prompt, pairs = self._told(batch)
        if not self.config.prompt.own_vectors:
            return prompt, pairs
        known = {"user": self.pairs.known("user", batch.user_B), "item": self.pairs.known("item", batch.item_B)}
        user_BF, item_BF = (self.own[name](1 + index_B) for name, index_B in known.items())
        return prompt, replace(pairs, user_BF=pairs.user_BF + user_BF, item_BF=pairs.item_BF + item_BF)

    @torch.no_grad()
    def _told(self, batch: ReviewBatch) -> tuple[Prompt, Pairs]:
        """Return the prompts, and what stage 1 tells of pairs, without noise and as it is."""
        training = self.pairs.training
        self.pairs.eval()
        rating_B, share_BC = self.ratings(batch), self.responsibilities(batch)
        pairs = Pairs(
            user_BF=self.pairs.user_vector(batch.user_B),
            item_BF=self.pairs.item_vector(batch.item_B),
            cluster_B=self.gates(batch, share_BC),
            share_BC=share_BC,
            rating_B=rating_B,
        )
        self.pairs.train(training)
        told_B = torch.where(batch.record_B < 0, rating_B, batch.rating_B.to(rating_B))
        prompt = self.prompter.prompt(told_B.tolist(), batch.feature, batch.text)
        return prompt.to(rating_B.device), pairs

    def gates(self, batch: ReviewBatch, share_BC: Tensor) -> Tensor:
        """Return the gate of each pair, int64 (B,): its cluster's, or one that says nothing, as a control."""
        if self.config.experts.gates == "random":
            return shuffled_gates(batch.user_B, batch.item_B, self.share_C, self.seed)
        return share_BC.argmax(1)

    def scores(self, z_BZ: Tensor, batch: ReviewBatch) -> Tensor:
        """Return the score of each level of the rating, (B, R)."""
        score_BR = self.pairs.rating_scores(z_BZ)
        if not self.config.pairs.biases:
            return score_BR
        return score_BR + self.pairs.bias(batch.user_B, batch.item_B)[:, None] * self.step_R

    def word_nll(self, z_BZ: Tensor, batch: ReviewBatch) -> Tensor:
        """Return the negative log-probability of each text's words together, in any order, (B,)."""
        told_BW = self.pairs.word_scores(z_BZ).float().log_softmax(1)
        told_BL = told_BW.gather(1, batch.word_BL.clamp(min=0))
        return -(told_BL * (batch.word_BL != NOTHING)).sum(1)

    def ratings(self, batch: ReviewBatch) -> Tensor:
        """Return the expected rating of each pair, (B,)."""
        mean_BZ = self.pairs(batch.user_B, batch.item_B).mean_BZ
        return self.scores(mean_BZ, batch).float().softmax(1) @ self.level_R.float()

    def responsibilities(self, batch: ReviewBatch) -> Tensor:
        """Return how probable each cluster is of each pair, (B, C); of strangers, how probable it is of any pair.

        Where clusters are of users, it is the user's cluster alone, as soon as that is known.
        """
        own_BC = self.prior.responsibility(self.pairs(batch.user_B, batch.item_B).mean_BZ)
        strange_B = self.pairs.strange(batch.user_B, batch.item_B)
        own_BC = torch.where(strange_B[:, None], self.prior.log_weight().exp(), own_BC)
        if not len(self.cluster_U):
            return own_BC
        user_B = self.pairs.known("user", batch.user_B)
        cluster_B = torch.where(user_B >= 0, self.cluster_U[user_B.clamp(min=0)], -1)
        whole_BC = nn.functional.one_hot(cluster_B.clamp(min=0), own_BC.shape[1]).to(own_BC)
        return torch.where((cluster_B >= 0)[:, None], whole_BC, own_BC)

    def clusters(self, batch: ReviewBatch) -> Tensor:
        """Return the cluster of each pair, int64 (B,): the most probable one by the latent's mean."""
        return self.responsibilities(batch).argmax(1)


def _own(count: int, width: int) -> nn.Embedding:
    """Return a table of what is learned beside another one, 0 at first; row 0 is of the unknown and stays 0."""
    table = nn.Embedding(1 + count, width, padding_idx=0)
    nn.init.zeros_(table.weight)
    return table


@torch.no_grad()
def assign(module: nn.Module, feed: PhaseFeed) -> None:
    """Tell the model how many of training's pairs each cluster has and, where clusters are of users, whose is which.

    A user's cluster is the most probable one on average over the user's pairs of training.
    """
    assert isinstance(module, GaVaMoEModel)
    module.cluster_U.fill_(-1)
    count_C: np.ndarray = np.zeros(len(module.share_C))
    total_UC: np.ndarray = np.zeros((len(module.cluster_U), len(module.share_C)))
    for batch, counts in feed.rows("train"):
        if counts:
            share_BC = module.responsibilities(batch).double().cpu().numpy()
            count_C += np.bincount(share_BC.argmax(1), minlength=len(count_C))
            if len(total_UC):
                np.add.at(total_UC, batch.user_B.cpu().numpy(), share_BC)
    parts = feed.gather((count_C, total_UC))
    count_C, total_UC = (np.sum(values, axis=0) for values in zip(*parts, strict=True))
    if len(total_UC):
        module.cluster_U.copy_(torch.from_numpy(np.where(total_UC.any(1), total_UC.argmax(1), -1)))
        inside_U = total_UC.sum(1)
        count_C = np.bincount(total_UC.argmax(1), inside_U, minlength=len(count_C))
    module.share_C.copy_(torch.from_numpy(count_C / count_C.sum()))
