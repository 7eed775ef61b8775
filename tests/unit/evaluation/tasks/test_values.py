"""Averages and what stands for an average over nothing."""

import numpy as np
import pytest

from rec.evaluation.tasks.values import MetricValue, mean, quotient


def test_mean_is_the_sum_over_the_number_of_rows() -> None:
    assert mean(np.array([1, 0, 0.5]), of="rows") == MetricValue(value=1.5 / 3, count=3)


def test_a_weight_says_how_often_a_row_counts(rng: np.random.Generator) -> None:
    value_N, weight_N = rng.random(20), rng.integers(0, 4, 20)
    weighted, repeated = mean(value_N, weight_N, of="rows"), mean(np.repeat(value_N, weight_N), of="rows")
    assert weighted.value == pytest.approx(repeated.value, abs=1e-12)
    assert weighted.count == repeated.count


@pytest.mark.parametrize(
    "nothing",
    [
        mean(np.array([]), of="rows"),
        mean(np.array([2.0]), np.array([0.0]), of="rows"),
        quotient(0, 0, of="rows"),
    ],
)
def test_an_average_over_nothing_is_none_with_a_note(nothing: MetricValue) -> None:
    assert nothing == MetricValue(value=None, count=0, note="no rows")
