"""Vectors of items by modality and content graphs."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from rec.errors import ConfigError, DataError
from tests.support.own import own, own_tables, prepared, write_events
from tests.unit.data.sources.test_mmrec import made


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"text.npy: row 2 is not finite"):
        made(tmp_path, features=np.array([[1.0], [np.nan], [1.0], [1.0]]))
    with pytest.raises(DataError, match=r"text.npy: float64 of shape \(4,\), expected numbers of shape"):
        made(tmp_path, features=np.ones(4))
    with pytest.raises(DataError, match="vectors of 0 items, expected those of 2 at least"):
        made(tmp_path, features=np.zeros((4, 2)))
    scipy.sparse.save_npz(tmp_path / "own.npz", scipy.sparse.coo_matrix((4, 4)))
    with pytest.raises(DataError, match="content graph 'own': no edge between 4 items"):
        made(tmp_path, graphs={"own": "own.npz"})
    scipy.sparse.save_npz(tmp_path / "own.npz", scipy.sparse.eye(3))
    with pytest.raises(DataError, match=r"own.npz: a matrix of shape \(3, 3\), expected \(4, 4\)"):
        made(tmp_path, graphs={"own": "own.npz"})
    with pytest.raises(DataError, match=r"content graph 'own': .*nowhere.npz: cannot be read"):
        made(tmp_path, graphs={"own": "nowhere.npz"})


def test_vectors_are_of_length_one_where_asked_and_zeros_stay(tmp_path: Path) -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    data = made(tmp_path, features=vectors, content={"length": "unit"})
    assert np.allclose(data.array("feature_text"), [[0, 0], [0.6, 0.8], [0, 0], [0, 1], [1, 0]])
    assert made(tmp_path, features=vectors).array("feature_text")[1].tolist() == [3, 4]


def test_frozen_vectors_of_own_tables_become_features_and_graphs(tmp_path: Path) -> None:
    sections = own_tables(tmp_path)
    sections["encode"] = sections["encode"] | {"image": {"encoder": "raw", "size": 8, "thumbnail": 0}}
    sections["content"] = {"modalities": ["image"], "neighbours": 3}
    data = prepared(tmp_path / "data", sections)
    assert np.array_equal(data.array("feature_image"), data.array("item_image"))
    assert len(data.array("graph_image_edge")) == 10 * 3


def test_a_modality_without_vectors_is_refused_with_what_makes_it(tmp_path: Path) -> None:
    sections = {"read": own(tmp_path, write_events(tmp_path / "e.csv")).read, "content": {"modalities": ["text"]}}
    with pytest.raises(
        ConfigError, match=r"nothing makes frozen vectors of 'text'; set data.encode.text.encoder, and a source"
    ):
        prepared(tmp_path / "out", sections)


def test_vectors_follow_the_items_that_are_kept(tmp_path: Path) -> None:
    matrix = scipy.sparse.coo_matrix((np.ones(2), ([0, 3], [2, 1])), shape=(4, 4))
    scipy.sparse.save_npz(tmp_path / "own.npz", matrix)
    lines = ("0\t0\t0", "0\t2\t0", "0\t3\t0", "0\t0\t1", "1\t2\t0", "1\t3\t0", "1\t0\t0", "0\t1\t0")
    lines += ("1\t1\t2", "2\t0\t0", "2\t2\t1", "2\t3\t2")
    whole = made(tmp_path, lines, graphs={"own": "own.npz"})
    from tests.unit.data.sources.test_mmrec import MMREC

    read = whole.manifest["config"]["read"]
    kept = {"source": MMREC, "read": read, "split": {"protocol": "given"}, "filter": {"core": 3, "unseen": []}}
    data = prepared(tmp_path / "core", kept | {"content": {"neighbours": 1}})
    assert data.items["id"].to_pylist() == ["0", "2", "3"]
    assert np.array_equal(data.array("feature_text")[1:], whole.array("feature_text")[[1, 3, 4]])
    assert data.array("graph_own_edge").tolist() == [[1, 2]]
