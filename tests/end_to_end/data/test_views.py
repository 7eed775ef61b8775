"""Views: rows of every kind of model from the same records."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rec.data.config import DataConfig
from rec.data.prepare import prepare
from rec.data.prepared import Prepared, make_view
from rec.data.runner import InProcess
from rec.data.views.sequences import in_order, split_rows
from rec.data.views.view import Making, View, numbers
from rec.errors import ConfigError, DataError
from tests.support.own import own, prepared, quiet, write_events


def events(root: Path, **sections: Any) -> dict[str, Any]:
    return {"read": own(root, write_events(root / "e.csv")).read, **sections}


@pytest.mark.parametrize(
    ("split", "history", "target"),
    [
        ("train", [[1, 2], [6]], [3, 7]),
        ("val", [[1, 2, 3], [6, 7]], [4, 8]),
        ("test", [[1, 2, 3, 4], [6, 7, 8]], [5, 9]),
    ],
)
def test_sequences_hold_what_came_before_the_target(split: str, history: list[list[int]], target: list[int]) -> None:
    user, item = np.repeat([100, 101], [5, 4]), np.arange(1, 10)
    part = np.array([0, 0, 0, 1, 2, 0, 0, 1, 2])
    manifest = {"split": {"protocol": "leave-one-out", "hides_validation": False}}
    rows, lost = split_rows(user, item, part, split, manifest)
    assert rows.to_pydict() == {"user": [100, 101], "history": history, "target": target}
    assert lost == 0


def test_order_goes_by_the_first_key_then_by_the_others() -> None:
    user, time, row = np.array([0, 0, 0, 1]), np.array([4, 5, 5, 1]), np.array([9, 2, 3, 0])
    assert in_order(user, time, row)
    assert not in_order(user, time, row[[0, 2, 1, 3]])
    assert not in_order(user, time[[1, 0, 2, 3]], row)
    assert not in_order(user[::-1], time, row)
    assert not in_order(user, time, np.array([9, 2, 2, 0]))
    assert in_order(user[:0], time[:0], row[:0])


def test_a_user_with_one_record_of_training_is_no_row_of_sequences_and_is_counted(tmp_path: Path) -> None:
    rows = [("a", f"i{k}", k, 0) for k in range(3)] + [("b", "i0", 0, 0), ("a", "i3", 3, 1), ("a", "i4", 4, 2)]
    pd.DataFrame(rows, columns=["who", "what", "when", "part"]).to_csv(tmp_path / "e.csv", index=False)
    columns = {"user": "who", "item": "what", "time": "when", "part": "part"}
    read = own(tmp_path, tmp_path / "e.csv", read={"columns": columns}).read
    said: list[str] = []
    data = prepared(tmp_path / "out", {"read": read, "split": {"protocol": "given"}})
    make_view(data, "sequences", InProcess(), said.append)
    view = Prepared.open(data.root, "sequences")
    assert view.rows("train").to_pylist() == [{"user": 0, "history": [1, 2], "target": 3}]
    assert view.manifest["view"]["dropped"] == {"row without a history to go on from": 1}
    assert said[0].endswith("rows 1 train, 1 val, 1 test; 1 row without a history to go on from")


def test_pairs_hold_the_items_of_a_user_and_what_earlier_splits_know(tmp_path: Path) -> None:
    data = prepared(tmp_path / "out", events(tmp_path), view="pairs")
    train = {row["user"]: row["target"] for row in data.rows("train").to_pylist()}
    assert all(row["history"] == [] for row in data.rows("train").to_pylist())
    for row in data.rows("val").to_pylist():
        assert row["history"] == train[row["user"]]


def test_a_graph_has_a_row_per_interaction_and_every_edge_in_both_orders(tmp_path: Path) -> None:
    data = prepared(tmp_path / "out", events(tmp_path), view="graph")
    train = sorted((row["user"], *row["target"]) for row in data.rows("train").to_pylist())
    edge = data.array("edge_train")
    assert sorted(tuple(pair) for pair in edge.tolist()) == train
    assert (np.diff(edge[:, 0]) >= 0).all()
    place = np.asarray(data.array("edge_by_item_place"))
    assert (np.diff(edge[place, 1]) >= 0).all()
    assert np.array_equal(edge[place, 0], data.array("edge_by_item_user"))
    assert data.array("user_count").tolist() == np.bincount(edge[:, 0]).tolist()


def test_views_of_one_data_set_hold_the_same_records(tmp_path: Path) -> None:
    data = prepared(tmp_path / "out", events(tmp_path))
    targets = {}
    for name in ("sequences", "pairs", "graph"):
        rows = data.seen_as(name).rows("test").to_pylist()
        targets[name] = [
            (r["user"], r["history"], r["target"] if isinstance(r["target"], list) else [r["target"]]) for r in rows
        ]
    assert targets["sequences"] == targets["pairs"] == targets["graph"]


def test_a_view_is_made_when_it_is_first_needed_and_kept(tmp_path: Path) -> None:
    data = prepared(tmp_path / "out", events(tmp_path, views=["pairs"]))
    assert data.storage.list("views") == ["pairs"]
    Prepared.open(data.root, "graph")
    assert data.storage.list("views") == ["graph", "pairs"]
    before = data.storage.filesystem.get_file_info(data.storage.path("views/graph/view.json")).mtime
    Prepared.open(data.root, "graph").verify()
    assert data.storage.filesystem.get_file_info(data.storage.path("views/graph/view.json")).mtime == before


def test_a_view_that_was_stopped_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared(tmp_path / "out", events(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(Making, "array", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            data.seen_as("graph")
    assert data.storage.exists("views/graph/train")
    assert len(data.seen_as("graph").rows("train")) == 24
    data.seen_as("graph").verify()


def test_workers_that_need_a_view_at_once_all_get_it(tmp_path: Path) -> None:
    data = prepared(tmp_path / "out", events(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: Prepared.open(data.root, "graph"), range(16)))
    for each in found:
        each.verify()
        assert each.rows("test").equals(found[0].rows("test"))


class Lengths(View):
    """A view of one's own: how many items a user has."""

    name = "lengths"

    def make(self, making: Making) -> None:
        (user,) = numbers(making.records(["user"]), "user")
        users, count = np.unique(user, return_counts=True)
        for split in ("train", "val", "test"):
            making.rows(split, pa.table({"user": users, "count": count}), making.shard_rows)


def test_a_view_of_ones_own_is_named_by_its_import_path(tmp_path: Path) -> None:
    data = prepared(tmp_path / "out", events(tmp_path), view="tests.end_to_end.data.test_views:Lengths")
    assert data.rows("val")["count"].to_pylist() == [5, 6, 7, 5, 6, 7]


class Hiding(View):
    """A view whose table has a name that it may not have."""

    name = "../sequences"
    array = "item_count"

    def make(self, making: Making) -> None:
        making.array(self.array, np.zeros(3))


class Climbing(Hiding):
    array = "../../item_count"


class Fourth(Hiding):
    def make(self, making: Making) -> None:
        making.rows("../test", pa.table({"user": [0]}), 1)


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (Hiding, "a table 'item_count' would hide the data set's own"),
        (Climbing, r"a table '../../item_count', expected a name of letters"),
        (Fourth, "rows of a split '../test', expected one of train, val, test"),
    ],
)
def test_a_view_writes_nothing_outside_of_its_folder_and_hides_nothing(
    tmp_path: Path, view: type[View], words: str
) -> None:
    data = prepared(tmp_path / "out", events(tmp_path))
    before = data.array("item_count").tolist()
    with pytest.raises(DataError, match=words):
        data.seen_as(f"{__name__}:{view.__name__}")
    assert Prepared.open(data.root).array("item_count").tolist() == before
    assert data.storage.list("views") == []


@pytest.mark.parametrize("view", ["../views/pairs", "a/b", "..", ""])
def test_a_view_is_no_path(tmp_path: Path, view: str) -> None:
    data = prepared(tmp_path / "out", events(tmp_path), view="pairs")
    with pytest.raises(ConfigError, match="no view"):
        data.seen_as(view)


def test_a_view_that_is_none_is_refused(tmp_path: Path) -> None:
    data = prepared(tmp_path / "out", events(tmp_path))
    with pytest.raises(
        ConfigError,
        match="no view 'graphs'; there are sequences, pairs, graph, visits, sentences, records, or an import",
    ):
        data.seen_as("graphs")


def test_a_data_set_with_rows_of_its_own_has_no_records_for_a_view(food: Prepared, tmp_path: Path) -> None:
    from tests.support.prepared import write_prepared

    table = pa.table({"user": [0], "target": [1]})
    entities = {"user": (pa.table({"id": ["a"]}), 0), "item": (pa.table({"id": ["x"]}), 1)}
    written = write_prepared(
        str(tmp_path), splits=dict.fromkeys(("train", "val", "test"), table), entities=entities, tables={}, config={}
    )
    assert Prepared.open(str(tmp_path), "pairs").rows("val").equals(table)
    with pytest.raises(DataError, match="holds rows of its own and no records that a view 'pairs' could be made of"):
        written.seen_as("pairs")


def test_one_data_set_trains_a_sequential_system_and_one_on_graphs(tmp_path: Path) -> None:
    from rec.config import from_table
    from rec.train.job import train_here

    config = own(tmp_path / "data", write_events(tmp_path / "e.csv", users=30, items=15))
    data = prepare(config, InProcess(), quiet)
    systems = {
        "rec.systems.msmrec:MSMRec": {"gate": "none", "width": 8, "blocks": 1},
        "rec.systems.lightgcn:LightGCN": {"width": 8},
        "rec.systems.healthmoe:HealthMoE": None,
    }
    for system, model in systems.items():
        table = {"system": system, "out": str(tmp_path / system), "data": {"root": data.root}, "model": model or {}}
        run = from_table(table | {"train": {"epochs": 1, "batch_size": 16}})
        if model is None:  # what it needs beside rows is told by the key that makes it
            with pytest.raises(DataError, match=r"holds no tables .*HealthMoE always reads.*made by data.encode"):
                train_here(run, lambda _: None, quiet)
            continue
        assert train_here(run, lambda _: None, quiet).total_step > 0
    assert data.storage.list("views") == ["graph", "pairs", "sequences"]
    assert DataConfig(root=data.root).views == ()
