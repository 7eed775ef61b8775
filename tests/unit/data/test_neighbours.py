"""Nearest neighbours: against the whole matrix of cosines, of vectors that are the same, missing, small or large."""

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
    with pytest.raises(DataError, match=f"vectors of {there} items?, expected those of 2 at least"):
        nearest(vector, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_told_with_its_item(value: float) -> None:
    vector = np.ones((4, 3), np.float32)
    vector[2, 1] = value
    with pytest.raises(DataError, match="vector of item 2: not finite, expected numbers"):
        nearest(vector, 2)


def test_neighbours_are_those_of_the_whole_matrix_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from rec.data import neighbours

    rng = np.random.default_rng(0)
    vector = rng.integers(0, 3, (120, 4)).astype(np.float32)  # few values: many ties
    vector[7] = 0
    there = vector.any(1)
    unit = vector[there] / np.linalg.norm(vector[there], axis=1, keepdims=True)
    found = []
    for cells in (1 << 25, 500):
        monkeypatch.setattr(neighbours, "CELLS", cells)
        found.append(nearest(vector, 5))
    assert np.array_equal(found[0][0], found[1][0])
    near, cosine = found[0]
    assert (near[7] == -1).all()
    assert not (near[there] == 7).any()
    assert not (near == np.arange(120)[:, None]).any()
    every = unit @ unit.T
    np.fill_diagonal(every, -2)
    np.testing.assert_allclose(cosine[there], -np.sort(-every, 1)[:, :5], atol=1e-6)
    copies = np.tile(np.eye(2, 3, dtype=np.float32), (4, 1))  # items 0, 2, 4, 6 are the same
    assert nearest(copies, 2)[0][:4].tolist() == [[2, 4], [3, 5], [0, 4], [1, 5]]


def test_inverted_lists_find_nearly_all_neighbours() -> None:
    pytest.importorskip("faiss", reason="needs the extra `search`")
    vector = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    vector[9] = vector[3]
    exact, close = nearest(vector, 10)[0], nearest(vector, 10, "ivf")[0]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, close, strict=True)]) > 0.9
    assert not (close == np.arange(3000)[:, None]).any()
