"""The generated catalogue: how its best items are found."""

import numpy as np
import pytest

from rec.data.generated.catalogue import best_first


def slow(value_RI: np.ndarray, most: int) -> np.ndarray:
    """Return what sorting all of a row's places finds."""
    some = np.argpartition(-value_RI, most - 1, axis=1)[:, :most]
    return np.take_along_axis(some, np.argsort(-np.take_along_axis(value_RI, some, 1), axis=1), 1)


@pytest.mark.parametrize("most", [1, 7, 40])
@pytest.mark.parametrize("kinds", [3, 50, 1_000_000])
def test_the_best_are_those_of_the_whole_row_also_where_values_are_equal(
    rng: np.random.Generator, most: int, kinds: int
) -> None:
    value = rng.integers(0, kinds, (200, 40)).astype(np.float32)
    value[rng.random(value.shape) < 0.1] = -np.inf
    assert best_first(value, most).tolist() == slow(value, most).tolist()


def test_places_are_by_value_where_all_differ(rng: np.random.Generator) -> None:
    value = rng.permuted(np.arange(60, dtype=np.float32).reshape(1, -1).repeat(5, 0), axis=1)
    best = best_first(value, 10)
    assert np.take_along_axis(value, best, 1).tolist() == [list(range(59, 49, -1))] * 5
