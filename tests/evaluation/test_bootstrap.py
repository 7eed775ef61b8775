"""Intervals and paired comparisons."""

import math

import numpy as np
import pytest

from rec.evaluation.bootstrap import interval, intervals, paired


def test_a_model_compared_with_itself_gains_nothing(rng: np.random.Generator) -> None:
    value = rng.random(300)
    result = paired(value, value, 500, rng)
    assert (result.difference.mean, result.difference.low, result.difference.high) == (0, 0, 0)


def test_shares_of_resamples_that_are_no_gain_follow_the_direction(rng: np.random.Generator) -> None:
    value = rng.random(300)
    result = paired(value + 0.1, value, 500, rng)
    assert (result.worse_share, result.lower_worse_share) == (0, 1)


def test_the_interval_covers_what_the_normal_one_does(rng: np.random.Generator) -> None:
    value = rng.standard_normal(2000)
    found = interval(value, 2000, rng)
    half = 1.96 * value.std() / math.sqrt(2000)
    assert found.high - found.mean == pytest.approx(half, rel=0.1)
    assert found.mean - found.low == pytest.approx(half, rel=0.1)


def test_what_is_not_defined_is_left_out(rng: np.random.Generator) -> None:
    found = intervals({"a": np.array([1.0, np.nan, 3.0]), "b": np.array([np.nan])}, 100, rng)
    assert found["a"]["mean"] == 2
    assert "b" not in found
