"""Intervals and paired comparisons."""

import math

import numpy as np
import pytest

from rec.evaluation.bootstrap import Summed, interval, intervals, paired, paired_sums, summed_interval


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


def ratio(total: np.ndarray) -> float | None:
    return float(total[0] / total[1]) if total[1] else None


def test_a_metric_of_sums_is_that_of_all_units_and_resamples_whole_ones(rng: np.random.Generator) -> None:
    unit = np.array([0, 0, 1, 2])
    summed = Summed(part_BS=np.array([[1.0, 3], [0, 1], [2, 2], [0, 0]]), of_total=ratio)
    found = summed_interval(summed, unit, 400, rng)
    assert found is not None
    assert found.mean == 3 / 6
    # Units add (1, 4), (2, 2), (0, 0): every resample lies among their quotients.
    assert found.low == pytest.approx(1 / 4)
    assert found.high == pytest.approx(1.0)
    assert summed_interval(summed.within(unit == 2), unit[unit == 2], 100, rng) is None


def test_compared_sums_follow_the_difference_of_means_where_they_are_means(rng: np.random.Generator) -> None:
    ours, theirs = rng.random(200) + 0.1, rng.random(200)
    of_sums = [Summed(part_BS=np.stack([value, np.ones(200)], 1), of_total=ratio) for value in (ours, theirs)]
    found = paired_sums(of_sums[:1], of_sums[1:], None, 300, np.random.default_rng(3))
    wanted = paired(ours, theirs, 300, np.random.default_rng(3))
    assert found.difference.plain() == pytest.approx(wanted.difference.plain())
    assert (found.worse_share, found.lower_worse_share) == (wanted.worse_share, wanted.lower_worse_share)
