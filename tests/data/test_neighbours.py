"""Neighbours of vectors that are the same, missing, very small or very large."""

import numpy as np
import pytest

from rec.data.neighbours import nearest
from rec.errors import DataError

FAN = np.array([[1, 0], [1, 1], [0, 1], [1, 0.1]], np.float32)


@pytest.mark.parametrize("size", [1e-37, 1e-30, 1e-12, 1.0, 1e12, 1e25, 1e38])
def test_the_length_of_vectors_does_not_matter(size: float) -> None:
    found, cosine = nearest(FAN * np.float32(size), 3)
    assert found.tolist() == [[3, 1, 2], [3, 0, 2], [1, 3, 0], [0, 1, 2]]
    np.testing.assert_allclose(cosine[0], [1 / 1.01**0.5, 0.5**0.5, 0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 50])
def test_equal_vectors_are_all_as_near(count: int) -> None:
    found, cosine = nearest(np.ones((count, 3), np.float32), 4)
    near = min(count - 1, 4)
    assert found[0].tolist() == [*range(1, near + 1), *[-1] * (4 - near)]
    np.testing.assert_allclose(cosine[:, :near], 1, atol=1e-6)
    assert not cosine[:, near:].any()


@pytest.mark.parametrize("there", [0, 1])
def test_vectors_of_zeros_are_told_where_nothing_else_is_there(there: int) -> None:
    vector = np.zeros((4, 3), np.float32)
    vector[:there] = 1
    with pytest.raises(DataError, match=f"{there} items have a vector, expected at least 2"):
        nearest(vector, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_told_with_its_item(value: float) -> None:
    vector = np.ones((4, 3), np.float32)
    vector[2, 1] = value
    with pytest.raises(DataError, match="vector of item 2: not finite, expected numbers"):
        nearest(vector, 2)
