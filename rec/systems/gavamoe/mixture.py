"""A mixture of normal distributions as the prior of latents, and how it is fitted.

All of it is in logarithms and the weights are a softmax, so that nothing leaves the simplex, over- or underflows.
Letters: B pairs, C components, Z width of a latent.
Source: GaVaMoE (arXiv 2410.11841), stage 1, in the form of VaDE (Jiang et al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec.errors import TrainingError
from rec.systems.api import PhaseFeed
from rec.systems.gavamoe.pairs import Latent

LOG_2PI = math.log(2 * math.pi)
REGULARISATION = 1e-6
"""Least variance of a component in a fit."""


class GaussianMixturePrior(nn.Module):
    """Normal distributions with diagonal covariance and their weights, all of them free."""

    def __init__(self, components: int, latent: int) -> None:
        super().__init__()
        self.weight_C = nn.Parameter(torch.zeros(components))
        """Logits."""
        self.mean_CZ = nn.Parameter(torch.zeros(components, latent))
        self.log_variance_CZ = nn.Parameter(torch.zeros(components, latent))

    def log_weight(self) -> Tensor:
        """Return the logarithm of the components' weights, (C,)."""
        return self.weight_C.float().log_softmax(0)

    def log_joint(self, z_BZ: Tensor) -> Tensor:
        """Return log pi_c + log N(z; mean_c, variance_c), float32 (B, C)."""
        gap_BCZ = z_BZ.float()[:, None] - self.mean_CZ.float()
        log_variance_CZ = self.log_variance_CZ.float()
        distance_BC = (gap_BCZ.square() * (-log_variance_CZ).exp()).sum(2)
        return self.log_weight() - 0.5 * (distance_BC + (log_variance_CZ + LOG_2PI).sum(1))

    def responsibility(self, z_BZ: Tensor) -> Tensor:
        """Return how probable each component is given latents, (B, C)."""
        return self.log_joint(z_BZ).softmax(1)

    def cluster(self, mean_BZ: Tensor) -> Tensor:
        """Return the most probable component of each latent, int64 (B,)."""
        return self.log_joint(mean_BZ).argmax(1)

    def kl(self, latent: Latent, z_BZ: Tensor) -> Tensor:
        """Return the divergence of latents from the prior, (B,), with components as probable as z says.

        It is sum_c gamma_c KL(q || N_c) + KL(gamma || pi), where gamma is `responsibility(z)`.
        """
        log_gamma_BC = self.log_joint(z_BZ).log_softmax(1)
        mean_BZ, log_variance_BZ = latent.mean_BZ.float(), latent.log_variance_BZ.float()
        log_prior_CZ = self.log_variance_CZ.float()
        spread_BCZ = log_variance_BZ.exp()[:, None] + (mean_BZ[:, None] - self.mean_CZ.float()).square()
        far_BC = (spread_BCZ * (-log_prior_CZ).exp()).sum(2) + log_prior_CZ.sum(1)
        own_B = (1 + log_variance_BZ).sum(1)
        gap_BC = 0.5 * (far_BC - own_B[:, None]) + log_gamma_BC - self.log_weight()
        return (log_gamma_BC.exp() * gap_BC).sum(1)

    @torch.no_grad()
    def take(self, weight_C: np.ndarray, mean_CZ: np.ndarray, variance_CZ: np.ndarray) -> None:
        """Take over a mixture that was fitted."""
        log_weight_C = np.log(np.maximum(weight_C, np.finfo(np.float32).tiny))
        values = (log_weight_C, mean_CZ, np.log(variance_CZ))
        for parameter, value in zip((self.weight_C, self.mean_CZ, self.log_variance_CZ), values, strict=True):
            parameter.copy_(torch.as_tensor(value))


def fitted(mean_NZ: np.ndarray, components: int, seed: int) -> Any:
    """Return scikit-learn's mixture of normal distributions with diagonal covariance, fitted to latents (N, Z).

    Raises:
        TrainingError: there are fewer latents than components.
    """
    from sklearn.mixture import GaussianMixture

    if len(mean_NZ) < components:
        raise TrainingError(
            f"model.pairs.clusters: {components}, but the mixture has {len(mean_NZ)} pairs of training to be fitted "
            "to; lower it or raise model.pairs.fit_sample"
        )
    mixture = GaussianMixture(
        components, covariance_type="diag", init_params="k-means++", reg_covar=REGULARISATION, n_init=3, max_iter=200,
        random_state=seed % 2**32,
    )  # fmt: skip
    return mixture.fit(mean_NZ.astype(np.float64))


def in_sample(record_N: np.ndarray, most: int, total: int) -> np.ndarray:
    """Return which records are of a sample of about `most` of `total`, (N,): the same however records are cut."""
    if total <= most:
        return np.ones(len(record_N), bool)
    # The finaliser of splitmix64: what follows from a place alone and has no pattern in it.
    value = (record_N.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
    share_N = (value ^ (value >> np.uint64(31))).astype(np.float64) / 2.0**64
    chosen_N: np.ndarray = share_N < most / total
    return chosen_N


def fit(module: Any, feed: PhaseFeed) -> None:
    """Let the variance start as the mean does, and fit the prior to the means of a sample of training's pairs.

    Which pairs are of the sample, and the order in which they are fitted to, follow from their records alone, so that
    any number of workers fits the same mixture.
    """
    pairs, prior = module.pairs, module.prior
    with torch.no_grad():
        pairs.log_variance.load_state_dict(pairs.mean.state_dict())
    mean_NZ = sampled_means(module, feed, pairs.config.fit_sample)

    def once() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = fitted(mean_NZ, pairs.config.clusters, module.seed)
        return found.weights_, found.means_, found.covariances_

    prior.take(*feed.once(once))


def sampled_means(module: Any, feed: PhaseFeed, most: int) -> np.ndarray:
    """Return the latents' means of about `most` pairs of training, (N, Z), in the order of their records."""
    own = drawn(module, (batch for batch, counts in feed.rows("train") if counts), most, module.reviews)
    record_N, mean_NZ = (np.concatenate(parts) for parts in zip(*feed.gather((own.record_N, own.mean_NZ)), strict=True))
    ordered_NZ: np.ndarray = mean_NZ[np.argsort(record_N, kind="stable")]
    return ordered_NZ


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedSample:
    """A sample of pairs and what the encoder says of them."""

    record_N: np.ndarray
    user_N: np.ndarray
    rating_N: np.ndarray
    mean_NZ: np.ndarray


@torch.no_grad()
def drawn(module: Any, batches: Iterable[Any], most: int, total: int) -> EncodedSample:
    """Return about `most` of the `total` pairs of some batches, in their order."""
    nothing = np.zeros(0, np.int64)
    parts = [(nothing, nothing, np.zeros(0, np.float32), np.zeros((0, module.pairs.config.latent), np.float32))]
    for batch in batches:
        chosen_B = torch.from_numpy(in_sample(batch.record_B.cpu().numpy(), most, total)).to(batch.user_B.device)
        if bool(chosen_B.any()):
            user_B, item_B = batch.user_B[chosen_B], batch.item_B[chosen_B]
            found = (batch.record_B[chosen_B], user_B, batch.rating_B[chosen_B], module.pairs(user_B, item_B).mean_BZ)
            parts.append(tuple(value.float().cpu().numpy() if value.is_floating_point() else value.cpu().numpy()
                               for value in found))  # fmt: skip
    record_N, user_N, rating_N, mean_NZ = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return EncodedSample(record_N=record_N, user_N=user_N, rating_N=rating_N, mean_NZ=mean_NZ)
