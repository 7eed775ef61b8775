"""Counts of sentences, n-grams and features against loops over pairs."""

import itertools

import numpy as np
import pytest

from rec.evaluation.tasks.values import MetricValue
from rec.evaluation.tasks.writing.occurrences import (
    distinct_share,
    feature_coverage,
    feature_diversity,
    occurrences,
)
from tests.support.texts import WORDS, random_texts


def test_counts_are_those_of_rows_as_often_as_they_are_drawn() -> None:
    found = occurrences([["a", "b", "a"], ["b"], []])
    assert found.num_things == 2
    assert found.counts().tolist() == [2, 2]
    assert found.counts(np.array([0.0, 3.0, 1.0])).tolist() == [0, 3]


def test_distinct_share_of_worked_examples() -> None:
    assert distinct_share(occurrences([["x"], ["y"], ["x"]]).counts(), of="rows").value == 2 / 3
    assert distinct_share(occurrences([["a", "b"], ["a", "c"]]).counts(), of="words").value == 3 / 4
    nothing = distinct_share(occurrences([[], []]).counts(), of="words")
    assert nothing == MetricValue(value=None, count=0, note="no words")


def test_distinct_sentences_agree_with_the_loop_over_pairs(rng: np.random.Generator) -> None:
    texts = [tuple(text[:2]) for text in random_texts(rng, 200)[0]]
    kept: list[tuple[str, ...]] = []
    for text in texts:
        if not any(text == other for other in kept):
            kept.append(text)
    assert distinct_share(occurrences([text] for text in texts).counts(), of="rows").value == len(kept) / 200


def test_coverage_and_diversity_of_a_worked_example() -> None:
    count_K = occurrences([{"price", "tone"}, {"price"}, {"price", "tone"}]).counts()
    assert feature_coverage(count_K, num_features=4).value == 2 / 4
    assert feature_diversity(count_K, num_rows=3).value == (3 + 1) / 3


def test_diversity_agrees_with_the_loop_over_pairs(rng: np.random.Generator) -> None:
    features = set(WORDS[:8].tolist())
    held = [features.intersection(text) for text in random_texts(rng, 80)[0]]
    shared = [len(one & other) for one, other in itertools.combinations(held, 2)]
    value = feature_diversity(occurrences(held).counts(), num_rows=80)
    assert value.value == pytest.approx(sum(shared) / len(shared))
    assert value.count == len(shared)


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_have_no_diversity(rows: int) -> None:
    value = feature_diversity(occurrences([["a"]] * rows).counts(), num_rows=rows)
    assert value == MetricValue(value=None, count=0, note="no pairs of rows")


def test_coverage_of_no_features_has_no_value() -> None:
    assert feature_coverage(np.array([]), num_features=0).note == "no features"
