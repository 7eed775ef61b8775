"""Filters of sets: by hand, against every subset, and at the size of a cohort."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from rec.errors import ConfigError, DataError
from rec.evaluation.tasks.sets.filters import filtered
from rec.evaluation.tasks.sets.metrics import ddi_rate, interacting_pairs, predicted_sets

Pairs = list[tuple[int, int]]


def square(labels: int, pairs: Pairs) -> np.ndarray:
    found = np.zeros((labels, labels), bool)
    for one, other in pairs:
        found[one, other] = found[other, one] = True
    return found


def drawn(rng: np.random.Generator, labels: int, share: float) -> np.ndarray:
    half = np.triu(rng.random((labels, labels)) < share, 1)
    return half | half.T


CASES: list[tuple[list[float], Pairs, str, list[int]]] = [
    ([0.7, 0.6, 0.6], [(0, 1), (0, 2)], "none", [0, 1, 2]),
    ([0.7, 0.6, 0.6], [(0, 1), (0, 2)], "greedy", [0]),
    ([0.7, 0.6, 0.6], [(0, 1), (0, 2)], "two_sat", [1, 2]),
    # A chain: the best one takes the second away, which lets the third stand.
    ([0.9, 0.8, 0.7], [(0, 1), (1, 2)], "greedy", [0, 2]),
    ([0.9, 0.8, 0.7], [(0, 1), (1, 2)], "two_sat", [0, 2]),
    # Equal scores: the first label stays.
    ([0.6, 0.6], [(0, 1)], "greedy", [0]),
    ([0.6, 0.6], [(0, 1)], "two_sat", [0]),
    # What is below the threshold takes nothing away and comes not back.
    ([0.4, 0.9, 0.6], [(0, 1), (1, 2)], "greedy", [1]),
    ([0.1, 0.2, 0.3], [(0, 1)], "two_sat", []),
]


@pytest.mark.parametrize(("score", "pairs", "how", "kept"), CASES)
def test_worked_examples(score: list[float], pairs: Pairs, how: str, kept: list[int]) -> None:
    found_BV = filtered(np.array([score]), 0.5, square(len(score), pairs), how)
    assert np.flatnonzero(found_BV[0]).tolist() == kept


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("certain", [0.5, 0.7, 0.95, 1.0])
def test_what_is_certain_stays_and_the_rest_is_filtered(share: float, certain: float, rng: np.random.Generator) -> None:
    score_BV, interaction_VV = rng.random((120, 30)), drawn(rng, 30, share)
    found_BV = filtered(score_BV, 0.5, interaction_VV, "greedy", certain=certain)
    for score_V, found_V in zip(score_BV, found_BV, strict=True):
        kept: list[int] = []
        for label in np.argsort(-score_V, kind="stable"):
            if score_V[label] >= 0.5 and (score_V[label] >= certain or not interaction_VV[label, kept].any()):
                kept.append(int(label))
        assert np.flatnonzero(found_V).tolist() == sorted(kept)
    heaviest_BV = filtered(score_BV, 0.5, interaction_VV, "two_sat", certain=certain)
    assert (np.where(heaviest_BV, score_BV, 0).sum(1) >= np.where(found_BV, score_BV, 0).sum(1) - 1e-9).all()
    open_BV = heaviest_BV & (score_BV < certain)
    assert not (open_BV & (heaviest_BV.astype(int) @ interaction_VV.astype(int) > 0)).any()


@pytest.mark.parametrize("how", ["greedy", "two_sat"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_nothing_that_interacts_is_left_and_nothing_is_added(how: str, share: float, rng: np.random.Generator) -> None:
    score_BV, interaction_VV = rng.random((300, 40)), drawn(rng, 40, share)
    kept_BV, given_BV = filtered(score_BV, 0.5, interaction_VV, how), predicted_sets(score_BV)
    assert ddi_rate(interacting_pairs(kept_BV, interaction_VV).sum(0)).value == 0
    assert not (kept_BV & ~given_BV).any()
    # Whatever was taken interacts with something that stays, so that no set could be larger by one.
    assert (((kept_BV @ interaction_VV.astype(int)) > 0) | ~given_BV | kept_BV).all()


@pytest.mark.parametrize("share", [0.15, 0.4, 0.7])
def test_two_sat_is_the_heaviest_of_all_subsets(share: float, rng: np.random.Generator) -> None:
    labels = 10
    subset_SV = np.array(list(itertools.product([False, True], repeat=labels)))
    for _ in range(40):
        interaction_VV, score_V = drawn(rng, labels, share), rng.random(labels)
        clean_S = interacting_pairs(subset_SV, interaction_VV)[:, 0] == 0
        fits_S = clean_S & ~(subset_SV & (score_V < 0.3)).any(1)
        best = (subset_SV[fits_S] @ score_V).max()
        kept_V = filtered(score_V[None], 0.3, interaction_VV, "two_sat")[0]
        assert score_V[kept_V].sum() == pytest.approx(best)
        greedy_V = filtered(score_V[None], 0.3, interaction_VV, "greedy")[0]
        assert score_V[greedy_V].sum() <= best + 1e-9


def test_greedy_is_the_loop_that_everybody_would_write(rng: np.random.Generator) -> None:
    score_BV, interaction_VV = rng.random((200, 30)).round(1), drawn(rng, 30, 0.2)
    found_BV = filtered(score_BV, 0.4, interaction_VV, "greedy")
    for score_V, found_V in zip(score_BV, found_BV, strict=True):
        kept: list[int] = []
        for label in np.argsort(-score_V, kind="stable"):
            if score_V[label] >= 0.4 and not interaction_VV[label, kept].any():
                kept.append(label)
        assert np.flatnonzero(found_V).tolist() == sorted(kept)


@pytest.mark.parametrize(("how", "kept"), [("greedy", [0, 1]), ("two_sat", [0, 1])])
def test_allowed_pairs_stand_together(how: str, kept: list[int]) -> None:
    interaction_VV, allowed_VV = square(3, [(0, 1), (1, 2)]), np.zeros((3, 3), bool)
    allowed_VV[1, 0] = True  # one side is enough
    assert np.flatnonzero(filtered(np.array([[0.9, 0.8, 0.7]]), 0.5, interaction_VV, how, allowed_VV)[0]).tolist() == (
        kept
    )


def test_a_threshold_may_be_one_per_example() -> None:
    found_BV = filtered(np.array([[0.9, 0.6], [0.9, 0.6]]), np.array([[0.5], [0.95]]), square(2, [(0, 1)]), "greedy")
    assert found_BV.tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("how", ["none", "greedy", "two_sat"])
def test_without_interactions_or_examples_nothing_is_taken(how: str) -> None:
    assert filtered(np.array([[0.9, 0.1]]), 0.5, None, how).tolist() == [[True, False]]
    assert filtered(np.zeros((0, 2)), 0.5, square(2, [(0, 1)]), how).shape == (0, 2)


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(ConfigError, match=r"found 'sat', expected one of none, greedy, two_sat"):
        filtered(np.zeros((1, 2)), 0.5, square(2, []), "sat")
    with pytest.raises(DataError, match=r"interactions: found shape \(3, 3\), expected \(2, 2\)"):
        filtered(np.zeros((1, 2)), 0.5, square(3, []), "greedy")
    with pytest.raises(DataError, match="allowed pairs: found shape"):
        filtered(np.zeros((1, 2)), 0.5, square(2, []), "greedy", square(3, []))


def test_a_search_without_end_settles_for_the_best_it_knows(
    rng: np.random.Generator,
) -> None:
    score_BV, interaction_VV = 0.5 + rng.random((1, 60)) / 2, drawn(rng, 60, 0.3)
    best_BV = filtered(score_BV, 0.5, interaction_VV, "two_sat")
    found_BV = filtered(score_BV, 0.5, interaction_VV, "two_sat", steps=3)
    assert interacting_pairs(found_BV, interaction_VV)[0, 0] == 0
    greedy_BV = filtered(score_BV, 0.5, interaction_VV, "greedy")
    assert score_BV[greedy_BV].sum() <= score_BV[found_BV].sum() <= score_BV[best_BV].sum() + 1e-9


def test_a_cohort_takes_seconds(rng: np.random.Generator) -> None:
    labels, most = 112, {"greedy": 100_000, "two_sat": 20_000}
    interaction_VV = drawn(rng, labels, 0.054)
    spent = {}
    for how, visits in most.items():
        score_BV = rng.beta(0.4, 1.6, (visits, labels)).astype(np.float32)
        start = time.process_time()
        kept_BV = filtered(score_BV, 0.5, interaction_VV, how)
        spent[how] = time.process_time() - start
        assert interacting_pairs(kept_BV, interaction_VV)[:, 0].sum() == 0
    # About 1 s each on a core of 2024: wide bounds, as a slow loop would take minutes.
    assert spent["greedy"] < 15
    assert spent["two_sat"] < 15
