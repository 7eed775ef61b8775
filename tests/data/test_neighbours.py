"""Nearest neighbours against the whole matrix of cosines."""

import numpy as np
import pytest

from rec.data.neighbours import nearest


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
