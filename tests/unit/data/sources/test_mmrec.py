"""MMRec's layout: interactions, their split, vectors and content graphs by number."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from rec.data.prepared import Prepared
from rec.errors import DataError
from tests.support.own import prepared

HEAD = "userID\titemID\tx_label"
LINES = ("0\t0\t0", "0\t1\t0", "0\t2\t1", "1\t2\t0", "1\t0\t2", "2\t3\t0")
MMREC = "rec.data.sources.mmrec:MMRec"


def made(
    folder: Path, lines: tuple[str, ...] = LINES, features: np.ndarray | None = None, content: Any = None, **read: Any
) -> Prepared:
    (folder / "x.inter").write_text("\n".join((HEAD, *lines)) + "\n")
    np.save(folder / "text.npy", np.eye(4, 3) + 0.1 if features is None else features)
    table = {"folder": str(folder), "interactions": "x.inter", "features": {"text": "text.npy"}} | read
    sections = {"source": MMREC, "read": table, "split": {"protocol": "given"}}
    return prepared(folder / "data", sections | {"content": {"neighbours": 2} | (content or {})}, view="graph")


def test_rows_hold_what_training_knows_and_validation_items_are_ranked_in_test(tmp_path: Path) -> None:
    data = made(tmp_path)
    assert (data.num_users, data.num_items) == (3, 4)
    train = data.rows("train").to_pylist()
    assert sorted((row["user"], *row["target"]) for row in train) == [(0, 1), (0, 2), (1, 3), (2, 4)]
    assert all(row["history"] == [] for row in train)
    assert data.rows("val").to_pylist() == [{"user": 0, "history": [1, 2], "target": [3]}]
    assert data.rows("test").to_pylist() == [{"user": 1, "history": [3], "target": [1]}]
    assert data.array("item_count").tolist() == [0, 1, 1, 1, 1]
    assert data.array("feature_text").shape == (5, 3)
    assert len(data.array("graph_text_edge")) == 4 * 2
    assert data.array("graph_text_edge").min() == 1
    assert len(data.manifest["split"]["sha256"]) == 64


def test_a_graph_is_read_from_a_file_as_it_is(tmp_path: Path) -> None:
    matrix = scipy.sparse.coo_matrix(([0.5, 0.25], ([0, 3], [1, 0])), shape=(4, 4))
    scipy.sparse.save_npz(tmp_path / "own.npz", matrix)
    data = made(tmp_path, graphs={"text": "own.npz"})
    assert data.array("graph_text_edge").tolist() == [[1, 2], [4, 1]]
    assert data.array("graph_text_weight").tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((*LINES, "2\t1\t7"), "x.inter: row 7, column 'x_label': found '7', expected 0, 1 or 2"),
        ((*LINES, "2\tx\t0"), "x.inter: row 7, column 'itemID': found 'x', expected a number"),
        ((*LINES, "2\t1.5\t0"), "x.inter: row 7, column 'itemID': found '1.5', expected a whole number from 0"),
        ((*LINES, "2\t\t0"), "x.inter: row 7, column 'itemID': found None, expected a whole number from 0"),
        ((*LINES, "-1\t0\t0"), "x.inter: row 7, column 'userID': found '-1', expected a whole number from 0"),
        (("0\t0\t0", "0\t1\t2"), "x.inter: no record for val among 2"),
        (("0\t0\t1", "0\t1\t2"), "x.inter: no record for train"),
        (
            (*LINES, "2\t9\t0"),
            r"text.npy: 4 rows, expected one for each of 10 items \(the largest number in .*x.inter is 9",
        ),
    ],
)
def test_what_cannot_be_used_is_named_with_its_row(tmp_path: Path, lines: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        made(tmp_path, lines)


def test_a_missing_column_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.inter: no column 'when' \(data.read.columns.part\); the file has userID"):
        made(tmp_path, columns={"part": "when"})


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    data = made(tmp_path, (*LINES, "0\t1\t2", "3\t1\t2"))
    assert data.manifest["dropped"] == {"record of a user without training": 1, "repeated record": 1}
    assert data.manifest["counts"]["interactions_read"] == data.manifest["counts"]["interactions"] + 2 == 8


def test_without_parts_the_split_is_drawn(tmp_path: Path) -> None:
    lines = tuple(f"{user}\t{item}\t0" for user in range(3) for item in range(4))
    (tmp_path / "x.inter").write_text("\n".join((HEAD, *lines)) + "\n")
    read = {"folder": str(tmp_path), "interactions": "x.inter", "columns": {"part": ""}}
    data = prepared(tmp_path / "out", {"source": MMREC, "read": read, "split": {"protocol": "mmrec"}})
    assert [data.manifest["counts"][f"{name} interactions"] for name in ("train", "val", "test")] == [6, 3, 3]


@pytest.mark.data
def test_amazon_baby_is_the_canonical_split(amazon_baby: Path, tmp_path: Path) -> None:
    read: dict[str, Any] = {"folder": str(amazon_baby), "interactions": "mmrec/baby.inter"}
    read["features"] = {name: f"spectral_features/{name}_feat.npy" for name in ("image", "text")}
    read["graphs"] = {name: f"item_graphs/{name}_adj_10_True.npz" for name in ("image", "text")}
    read["graphs"]["freedom"] = "item_graphs/mm_adj_freedomdsp_10_1.npz"
    data = prepared(tmp_path, {"source": MMREC, "read": read, "split": {"protocol": "given"}}, view="graph")
    assert (data.num_users, data.num_items) == (19_445, 7_050)
    counts = data.manifest["counts"]
    assert [counts[f"{name} interactions"] for name in ("train", "val", "test")] == [118_551, 20_559, 21_682]
    assert data.manifest["split"]["sha256"].startswith("52a62f9d5fa8")
    assert (np.asarray(data.array("item_count"))[1:] == 0).sum() == 3
    history = [len(row) for row in data.rows("test")["history"].to_pylist()]
    assert (min(history), max(history), round(np.mean(history), 2)) == (3, 100, 6.1)
    assert len(history) == 19_445
    assert [len(data.array(f"graph_{name}_edge")) for name in ("image", "text", "freedom")] == [70_500, 70_500, 126_598]


@pytest.mark.parametrize("large", ["4000000000", "18446744073709551615", "100000000000000000000"])
def test_numbers_are_ids_however_large(tmp_path: Path, large: str) -> None:
    lines = tuple(line.replace("2\t", f"{large}\t", 1) if line.startswith("2") else line for line in LINES)
    assert made(tmp_path, lines).users["id"].to_pylist() == ["0", "1", large]
    (tmp_path / "items").mkdir()
    lines = tuple(line.replace("\t3\t", f"\t{large}\t") for line in LINES)
    (tmp_path / "items" / "x.inter").write_text("\n".join((HEAD, *lines)) + "\n")
    read = {"folder": f"{tmp_path}/items", "interactions": "x.inter"}
    found = prepared(tmp_path / "out", {"source": MMREC, "read": read, "split": {"protocol": "given"}}, view="graph")
    assert found.items["id"].to_pylist() == ["0", "1", "2", large]
