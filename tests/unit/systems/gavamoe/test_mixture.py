import math
from typing import Any

import numpy as np
import pytest
import torch

from rec.errors import ConfigError, TrainingError
from rec.systems.gavamoe.config import GaVaMoEConfig
from rec.systems.gavamoe.mixture import GaussianMixturePrior, fitted, in_sample
from rec.systems.gavamoe.pairs import Latent
from rec.systems.gavamoe.system import GaVaMoE


def prior(components: int, latent: int, seed: int = 0) -> GaussianMixturePrior:
    torch.manual_seed(seed)
    made = GaussianMixturePrior(components, latent)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made


def latents(rows: int, latent: int) -> tuple[Latent, torch.Tensor]:
    torch.manual_seed(3)
    found = Latent(torch.randn(rows, latent), torch.randn(rows, latent))
    return found, found.drawn()


def test_one_standard_component_gives_the_divergence_of_a_plain_autoencoder() -> None:
    latent, z_BZ = latents(5, 4)
    mean_BZ, log_variance_BZ = latent.mean_BZ, latent.log_variance_BZ
    wanted_B = 0.5 * (mean_BZ**2 + log_variance_BZ.exp() - 1 - log_variance_BZ).sum(1)
    torch.testing.assert_close(GaussianMixturePrior(1, 4).kl(latent, z_BZ), wanted_B)


@pytest.mark.parametrize("components", [2, 5])
def test_the_divergence_is_that_of_each_component_and_of_the_weights(components: int) -> None:
    mixture, (latent, z_BZ) = prior(components, 4), latents(6, 4)
    own = torch.distributions.Normal(latent.mean_BZ, (0.5 * latent.log_variance_BZ).exp())
    log_weight_C = mixture.weight_C.log_softmax(0)
    joint, parts = [], []
    for c in range(components):
        one = torch.distributions.Normal(mixture.mean_CZ[c], (0.5 * mixture.log_variance_CZ[c]).exp())
        joint.append(log_weight_C[c] + one.log_prob(z_BZ).sum(1))
        parts.append(torch.distributions.kl_divergence(own, one).sum(1))
    gamma_BC = torch.stack(joint, 1).softmax(1)
    wanted_B = (gamma_BC * (torch.stack(parts, 1) + gamma_BC.log() - log_weight_C)).sum(1)
    torch.testing.assert_close(mixture.kl(latent, z_BZ), wanted_B, rtol=1e-4, atol=1e-4)


def test_the_divergence_is_the_published_formula() -> None:
    mixture, (latent, z_BZ) = prior(3, 2), latents(4, 2)
    gamma_BC, pi_C = mixture.responsibility(z_BZ), mixture.weight_C.softmax(0)
    wanted = []
    for b in range(4):
        total = 0.0
        for c in range(3):
            inner = 0.0
            for j in range(2):
                s2, s2_c = latent.log_variance_BZ[b, j].exp(), mixture.log_variance_CZ[c, j].exp()
                inner += s2_c.log() + s2 / s2_c + (latent.mean_BZ[b, j] - mixture.mean_CZ[c, j]) ** 2 / s2_c
            total += 0.5 * gamma_BC[b, c] * inner - gamma_BC[b, c] * (pi_C[c] / gamma_BC[b, c]).log()
        wanted.append(total - 0.5 * (1 + latent.log_variance_BZ[b]).sum())
    torch.testing.assert_close(mixture.kl(latent, z_BZ), torch.stack(wanted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("log_variance", "far"), [(-5.1, 0.0), (0.0, 0.99), (0.0, 3.0)])
def test_densities_that_no_exponential_holds_give_the_shares_of_arithmetic(log_variance: float, far: float) -> None:
    mixture, shares = GaussianMixturePrior(3, 128), [0.22, 0.36, 0.42]
    with torch.no_grad():
        mixture.weight_C.copy_(torch.tensor(shares).log())
        mixture.log_variance_CZ.fill_(log_variance)
    z_BZ = torch.full((1, 128), far)
    density = float(mixture.log_joint(z_BZ)[0, 0].detach()) - math.log(0.22)
    assert density == pytest.approx(
        -64 * (math.log(2 * math.pi) + log_variance + far**2 / math.exp(log_variance)), rel=1e-4
    )
    assert mixture.responsibility(z_BZ)[0].tolist() == pytest.approx(shares, abs=3e-4)
    latent = Latent(z_BZ, torch.zeros(1, 128))
    assert mixture.kl(latent, z_BZ).isfinite().all()


def test_weights_stay_on_the_simplex_while_they_are_trained() -> None:
    mixture, (latent, z_BZ) = prior(3, 4), latents(16, 4)
    optimiser = torch.optim.Adam(mixture.parameters(), lr=0.5)
    for _ in range(30):
        optimiser.zero_grad()
        mixture.kl(latent, z_BZ).sum().backward()
        optimiser.step()
    share_C = mixture.log_weight().exp()
    assert share_C.min() >= 0
    assert float(share_C.sum()) == pytest.approx(1)
    assert mixture.kl(latent, z_BZ).isfinite().all()


def test_the_most_probable_component_is_chosen_by_weight_and_density() -> None:
    mixture = GaussianMixturePrior(2, 1)
    with torch.no_grad():
        mixture.mean_CZ.copy_(torch.tensor([[0.0], [1.0]]))
        mixture.weight_C.copy_(torch.tensor([0.9, 0.1]).log())
    # log 0.9 - z^2 / 2 = log 0.1 - (z - 1)^2 / 2 at z = 1/2 + log 9 = 2.697
    assert mixture.cluster(torch.tensor([[2.6], [2.8], [-1.0]])).tolist() == [0, 1, 0]


def test_a_fit_finds_what_data_were_drawn_from() -> None:
    rng = np.random.default_rng(0)
    mean_NZ = np.concatenate([rng.normal(-3, 1, (300, 2)), rng.normal(3, 0.5, (900, 2))]).astype(np.float32)
    mixture = GaussianMixturePrior(2, 2)
    found = fitted(mean_NZ, 2, 0)
    mixture.take(found.weights_, found.means_, found.covariances_)
    assert sorted(mixture.log_weight().exp().tolist()) == pytest.approx([0.25, 0.75], abs=0.02)
    torch.testing.assert_close(mixture.cluster(torch.from_numpy(mean_NZ)), torch.from_numpy(found.predict(mean_NZ)))
    again = fitted(mean_NZ, 2, 0)
    assert (again.means_ == found.means_).all()


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ({"clusters": 19}, "19, but the mixture has 18 pairs (training has 18,"),
        ({"clusters": 4, "fit_sample": 3}, "4, but the mixture has 3 pairs (training has 18,"),
    ],
)
def test_more_clusters_than_pairs_are_refused_before_training(pairs: dict[str, Any], words: str) -> None:
    _, tables = GaVaMoE.sample(8, np.random.default_rng(0))
    tables = tables | {"user_count": np.array([3] * 6 + [0])}
    GaVaMoE(GaVaMoEConfig.model_validate({"pairs": {"clusters": 18}}), tables)
    with pytest.raises(ConfigError) as error:
        GaVaMoE(GaVaMoEConfig.model_validate({"pairs": pairs}), tables)
    assert f"model.pairs.clusters: {words}" in str(error.value)


def test_fewer_pairs_than_clusters_are_refused_with_the_key() -> None:
    with pytest.raises(TrainingError, match=r"model.pairs.clusters: 4, but .* 3 pairs"):
        fitted(np.zeros((3, 2), np.float32), 4, 0)


def test_a_sample_follows_from_records_alone_and_has_about_its_size() -> None:
    record_N = np.random.default_rng(0).permutation(20_000)
    chosen_N = in_sample(record_N, 5000, 20_000)
    assert abs(chosen_N.sum() - 5000) < 4 * math.sqrt(5000)
    assert (in_sample(record_N[::3], 5000, 20_000) == chosen_N[::3]).all()
    assert in_sample(record_N, 20_000, 20_000).all()
