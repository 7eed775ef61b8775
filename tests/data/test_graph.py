"""From interactions, vectors and content graphs to a prepared data set for recommenders on graphs."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from rec.data.graph import eight_one_one
from rec.data.planted_graph import planted_graph
from rec.keys_graph import GraphConfig, PlantedGraphConfig
from rec.keys_pairs import PairsConfig

from rec.data.neighbours import nearest
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.errors import DataError
from rec.keys import DataConfig

HEAD = "userID\titemID\tx_label"
LINES = ("0\t0\t0", "0\t1\t0", "0\t2\t1", "1\t2\t0", "1\t0\t2", "2\t3\t0")


def made(
    folder: Path, lines: tuple[str, ...] = LINES, features: np.ndarray | None = None, **changes: object
) -> Prepared:
    (folder / "x.inter").write_text("\n".join((HEAD, *lines)) + "\n")
    np.save(folder / "text.npy", np.eye(4, 3) + 0.1 if features is None else features)
    table = {"folder": str(folder), "interactions": "x.inter", "features": {"text": "text.npy"}, "neighbours": 2}
    graph = GraphConfig.model_validate(table | changes)
    return prepare(DataConfig(root=str(folder / "data"), graph=graph), InProcess(), lambda _: None)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(5, (3, 1, 1)), (9, (7, 1, 1)), (10, (8, 1, 1)), (14, (12, 1, 1)), (15, (12, 1, 2)), (20, (16, 2, 2))],
)
def test_a_user_is_split_eight_to_one_to_one(count: int, sizes: tuple[int, int, int]) -> None:
    user = np.repeat([0, 3], count)
    part = eight_one_one(user, 0)
    for each in (0, 3):
        assert tuple(np.bincount(part[user == each], minlength=3)) == sizes
    assert np.array_equal(part, eight_one_one(user, 0))
    assert not np.array_equal(part, eight_one_one(user, 1)) or count == 5


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
    assert len(data.manifest["split_sha256"]) == 64


def test_a_graph_is_read_from_a_file_as_it_is(tmp_path: Path) -> None:
    matrix = scipy.sparse.coo_matrix(([0.5, 0.25], ([0, 3], [1, 0])), shape=(4, 4))
    scipy.sparse.save_npz(tmp_path / "own.npz", matrix)
    data = made(tmp_path, graphs={"text": "own.npz"})
    assert data.array("graph_text_edge").tolist() == [[1, 2], [4, 1]]
    assert data.array("graph_text_weight").tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((*LINES, "2\t1\t7"), "x.inter, row 8: x_label is '7', expected 0, 1 or 2"),
        ((*LINES, "2\tx\t0"), "x.inter, row 8: itemID is 'x', expected a whole number from 0"),
        ((*LINES, "-1\t0\t0"), "row 8: userID is '-1', expected a whole number"),
        (("0\t0\t0", "0\t1\t2"), "no interaction for val among 2"),
        (("0\t0\t1", "0\t1\t2"), "no interaction for train"),
        ((*LINES, "2\t9\t0"), "text.npy: 4 rows, expected one for each of 10 items"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_row(tmp_path: Path, lines: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        made(tmp_path, lines)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 1 is not finite"):
        made(tmp_path, features=np.array([[1.0], [np.nan], [1.0], [1.0]]))
    with pytest.raises(DataError, match="0 items have a vector, expected at least 2"):
        made(tmp_path, features=np.zeros((4, 2)))
    with pytest.raises(DataError, match="no column 'when'"):
        made(tmp_path, columns={"split": "when"})
    scipy.sparse.save_npz(tmp_path / "own.npz", scipy.sparse.coo_matrix((4, 4)))
    with pytest.raises(DataError, match="content graph 'own': no edge between 4 items"):
        made(tmp_path, graphs={"own": "own.npz"})
    scipy.sparse.save_npz(tmp_path / "own.npz", scipy.sparse.eye(3))
    with pytest.raises(DataError, match=r"a matrix of shape \(3, 3\), expected \(4, 4\)"):
        made(tmp_path, graphs={"own": "own.npz"})


def test_vectors_are_of_length_one_where_asked_and_zeros_stay(tmp_path: Path) -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    data = made(tmp_path, features=vectors, feature_length="unit")
    assert np.allclose(data.array("feature_text"), [[0, 0], [0.6, 0.8], [0, 0], [0, 1], [1, 0]])
    assert made(tmp_path, features=vectors).array("feature_text")[1].tolist() == [3, 4]


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    data = made(tmp_path, (*LINES, "0\t1\t2", "3\t1\t2"))
    assert data.manifest["dropped"] == {"interaction of a user without training": 1, "pair twice": 1}


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


def test_a_planted_graph_has_users_who_follow_one_topic_of_one_modality(tmp_path: Path) -> None:
    config = PlantedGraphConfig(users=300, items=200, interactions=6000)
    graph, again = planted_graph(config), planted_graph(config)
    assert np.array_equal(graph.item_E, again.item_E)
    assert 3500 < len(graph.user_E) <= 6000
    assert (np.diff(graph.user_E) >= 0).all()
    assert len(np.unique(graph.user_E * 200 + graph.item_E)) == len(graph.user_E)
    unit = {name: x / np.linalg.norm(x, axis=1, keepdims=True) for name, x in graph.features.items()}
    alike = {}
    for number, name in enumerate(config.modalities):
        for follows in (True, False):
            users = np.flatnonzero((graph.followed_U == number) == follows)
            rows = [unit[name][graph.item_E[graph.user_E == user]] for user in users]
            alike[name, follows] = np.mean([(part @ part.T)[np.triu_indices(len(part), 1)].mean() for part in rows])
    assert all(alike[name, True] > alike[name, False] + 0.2 for name in config.modalities)
    data = prepare(DataConfig(root=str(tmp_path), graph=GraphConfig(planted=config)), InProcess(), lambda _: None)
    assert data.manifest["synthetic_labels"]
    assert set(data.users["group"].to_pylist()) == {"image", "text"}


@pytest.mark.data
def test_movielens_with_posters_is_the_derived_set(movielens: Path, tmp_path: Path) -> None:
    text, image = {"encoder": "tfidf", "width": 16}, {"encoder": "raw", "size": 16, "thumbnail": 0, "pixels": False}
    pairs = {"kind": "movielens", "items": str(movielens / "ml-100k"), "images": str(movielens / "posters_ml100k")}
    whole = PairsConfig.model_validate(pairs | {"text": text, "image": image, "cold_items": 0.0, "cold_users": 0.0})
    prepare(DataConfig(root=str(tmp_path / "pairs"), pairs=whole), InProcess(), lambda _: None)
    table = {"prepared": str(tmp_path / "pairs"), "features": {"text": "", "image": ""}, "required": ["image"]}
    graph = GraphConfig.model_validate(table | {"minimum_count": 5})
    data = prepare(DataConfig(root=str(tmp_path / "graph"), graph=graph), InProcess(), lambda _: None)
    counts = data.manifest["counts"]
    assert (counts["users"], counts["items"], counts["interactions"]) == (943, 1342, 99_126)
    assert [counts[f"{name} interactions"] for name in ("train", "val", "test")] == [79_659, 9_515, 9_952]
    assert data.array("feature_image")[1:].any(1).all()


@pytest.mark.data
def test_amazon_baby_is_the_canonical_split(amazon_baby: Path, tmp_path: Path) -> None:
    table = {"folder": str(amazon_baby), "interactions": "mmrec/baby.inter"}
    table["features"] = {name: f"spectral_features/{name}_feat.npy" for name in ("image", "text")}
    table["graphs"] = {name: f"item_graphs/{name}_adj_10_True.npz" for name in ("image", "text")}
    table["graphs"]["freedom"] = "item_graphs/mm_adj_freedomdsp_10_1.npz"
    data = prepare(DataConfig(root=str(tmp_path), graph=GraphConfig(**table)), InProcess(), lambda _: None)
    assert (data.num_users, data.num_items) == (19_445, 7_050)
    counts = data.manifest["counts"]
    assert [counts[f"{name} interactions"] for name in ("train", "val", "test")] == [118_551, 20_559, 21_682]
    assert (np.asarray(data.array("item_count"))[1:] == 0).sum() == 3
    history = [len(row) for row in data.rows("test")["history"].to_pylist()]
    assert (min(history), max(history), round(np.mean(history), 2)) == (3, 100, 6.1)
    assert len(history) == 19_445
    assert [len(data.array(f"graph_{name}_edge")) for name in ("image", "text", "freedom")] == [70_500, 70_500, 126_598]
