from typing import Any

import numpy as np
import pytest
import torch

from rec.systems.gavamoe.mixture import EncodedSample, fit, fitted, sampled_means
from rec.systems.gavamoe.model import GaVaMoEModel
from rec.systems.gavamoe.report import NOISE, ClusterAnalysis, agreement, assigned, bic, planted, quality, several
from rec.train.ranks import OneRank, RankFeed
from tests.conformance import take
from tests.unit.systems.gavamoe.test_pairs import built


def apart(rows: int, seed: int = 0) -> np.ndarray:
    """Return latents of two groups far from each other, in turns."""
    found = np.random.default_rng(seed).normal(0, 0.5, (rows, 16)).astype(np.float32)
    found[1::2] += 8
    return found


def told(mean_NZ: np.ndarray, **columns: Any) -> EncodedSample:
    place_N = np.arange(len(mean_NZ))
    given = {"record_N": place_N, "user_N": place_N // 4, "rating_N": np.ones(len(mean_NZ), np.float32)}
    return EncodedSample(**{**given, **columns}, mean_NZ=mean_NZ)


def two_clusters() -> GaVaMoEModel:
    """Return a model whose prior has a component at 0 and one at 8."""
    _, _, module = built(clusters=2)
    with torch.no_grad():
        module.prior.weight_C.zero_()
        module.prior.log_variance_CZ.zero_()
        module.prior.mean_CZ.copy_(torch.tensor([[0.0], [8.0]]).expand(2, 16))
    return module


def test_ratings_that_clusters_tell_are_explained() -> None:
    rating_N = np.array([1, 5] * 10, np.float32)
    found = quality(two_clusters(), told(apart(20), rating_N=rating_N), 0)
    assert found["size"] == [10, 10]
    assert found["rating"] == [1, 5]
    assert found["explained"] == pytest.approx(1)
    assert found["silhouette"] > 0.8
    # Clusters of ratings 1, 1, 3, 3 and 3, 3, 5, 5: means 2 and 4 around 3, a variance of 1 among 2.
    rating_N = np.array([1, 3, 1, 3, 3, 5, 3, 5], np.float32)
    assert quality(two_clusters(), told(apart(8), rating_N=rating_N), 0)["explained"] == pytest.approx(1 / 2)


def test_what_has_no_value_is_none() -> None:
    found = quality(two_clusters(), told(apart(6)[::2]), 0)
    assert found["silhouette"] is None
    assert found["explained"] is None
    assert found["rating"] == [1, None]


def test_users_with_pairs_in_several_clusters() -> None:
    # Of four pairs each, in turns of the clusters; then two of each user, of one cluster alone; then one each.
    module = two_clusters()
    assert several(module, told(apart(8))) == 1
    assert several(module, told(apart(8), user_N=np.arange(8) % 2)) == 0
    assert several(module, told(apart(8), user_N=np.array([0, 0, 1, 2, 1, 3, 4, 5]))) == pytest.approx(1 / 2)
    assert several(module, told(apart(4), user_N=np.arange(4))) is None


def test_the_criterion_is_lowest_where_there_are_as_many_components() -> None:
    found = bic(apart(600), 0)
    assert min(found, key=lambda name: found[name]) == "2"
    assert list(found) == [str(k) for k in range(1, 9)]
    assert list(bic(apart(6), 0)) == ["1", "2", "3"]


def test_fits_to_two_halves_agree_where_groups_are_apart_and_hardly_where_there_are_none() -> None:
    mean_NZ = np.concatenate([apart(200), apart(200, 1)[::-1]])
    assert agreement(mean_NZ, 2, 0) == {"adjusted_rand": 1, "same": 1}
    noise = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32)
    assert agreement(noise, 4, 0)["adjusted_rand"] < 0.5
    assert agreement(noise[:7], 4, 0) == {}


def test_planted_clusters_are_found_or_not() -> None:
    found = told(apart(40), user_N=np.arange(40) % 2)
    cluster_N = assigned(two_clusters(), found)
    assert planted(np.array([1, 0]), found, cluster_N)["adjusted_rand"] == 1
    assert planted(np.array([0, 1, 0, 1]), told(apart(40)[::2], user_N=np.arange(20) % 4), cluster_N[::2]) == {
        "adjusted_rand": 0,
        "adjusted_mutual_information": 0,
    }


@torch.no_grad()
def test_noise_moves_a_pair_out_of_its_cluster_as_far_as_its_variance_reaches() -> None:
    system, rows, module = built(clusters=2)
    batch = system.collate(rows)
    module.pairs.log_variance.weight.zero_()
    module.pairs.log_variance.bias.fill_(-20)
    assert ClusterAnalysis(module)(batch)["cluster_stability"].eq(1).all()
    module.pairs.log_variance.bias.fill_(6)
    found = ClusterAnalysis(module)(batch)
    strange_B = module.pairs.strange(batch.user_B, batch.item_B)
    assert found["cluster_stability"].shape == (12, len(NOISE))
    assert found["cluster_stability"][strange_B].eq(1).all()
    assert found["cluster_stability"][~strange_B].lt(1).any()
    assert found["cluster_id"].tolist() == module.clusters(batch).tolist()
    alone = ClusterAnalysis(module)(system.collate(take(rows, [3])))
    torch.testing.assert_close(alone["cluster_stability"][0], found["cluster_stability"][3])


class Second(OneRank):
    """The second of two workers: it hears what the first has."""

    def __init__(self, first: Any) -> None:
        super().__init__()
        self.first = first

    def gather(self, value: Any) -> list[Any]:
        return [self.first, value]


def test_a_mixture_is_fitted_to_the_same_pairs_however_they_are_shared() -> None:
    system, rows, module = built(clusters=2, fit_sample=8)
    parts = [[0, 2, 4, 6, 8, 10], [11, 9, 7, 5, 3, 1]]
    heard: list[Any] = []

    class First(OneRank):
        def gather(self, value: Any) -> list[Any]:
            heard.append(value)
            return [value]

    def feed(ranks: Any, index: list[int]) -> RankFeed:
        return RankFeed(ranks, lambda _: iter([(system.collate(take(rows, index)), True)]))

    whole_NZ = sampled_means(module, feed(OneRank(), list(range(12))), 8)
    sampled_means(module, feed(First(), parts[0]), 8)
    shared_NZ = sampled_means(module, feed(Second(heard[0]), parts[1]), 8)
    np.testing.assert_allclose(shared_NZ, whole_NZ, atol=1e-6)
    assert 0 < len(whole_NZ) < 12


def test_a_fit_starts_the_variance_as_the_mean_and_clusters_as_scikit_learn_does() -> None:
    system, rows, module = built(clusters=2)
    feed = RankFeed(OneRank(), lambda _: iter([(system.collate(rows), True), (system.collate(rows), False)]))
    fit(module, feed)
    assert torch.equal(module.pairs.log_variance.weight, module.pairs.mean.weight)
    mean_NZ = sampled_means(module, feed, 100)
    assert len(mean_NZ) == 12
    wanted = fitted(mean_NZ, 2, module.seed).predict(mean_NZ.astype(np.float64))
    assert assigned(module, told(mean_NZ)).tolist() == wanted.tolist()
