"""A prepared data set as the source of another."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rec.data.prepared import Prepared
from rec.data.schema import RawData, RecordTable, Source, Workplace
from rec.errors import DataError
from rec.strict import Strict
from tests.end_to_end.data.sources.test_movielens import SOURCE as MOVIELENS
from tests.support.own import prepared
from tests.support.prepared import write_prepared

SOURCE = "rec.data.sources.prepared:FromPrepared"


def again(food: Prepared, root: Path, **read: Any) -> Prepared:
    sections = {"source": SOURCE, "read": {"root": food.root} | read, "split": {"protocol": "mmrec"}}
    return prepared(root, sections, view="graph")


def test_records_and_vectors_are_those_of_the_other(food: Prepared, tmp_path: Path) -> None:
    data = again(food, tmp_path, features=["text", "image"])

    def named(found: Prepared) -> set[tuple[str, str]]:
        users, items = found.users["id"].to_pylist(), [None, *found.items["id"].to_pylist()]
        table = found.records(["user", "item"]).to_pylist()
        return {(users[row["user"]], items[row["item"]]) for row in table}

    dropped = data.manifest["dropped"].get("record of a user without training", 0)
    assert named(data) <= named(food)
    assert len(named(data)) + dropped == len(named(food))
    place = food.items["id"].to_pylist().index(data.items["id"][0].as_py()) + 1
    assert data.array("feature_image")[1].tolist() == food.array("item_image")[place].tolist()
    assert data.manifest["synthetic_labels"]
    assert data.items["title"].to_pylist()[0].strip()


def test_items_without_a_required_modality_go_and_their_records_are_counted(food: Prepared, tmp_path: Path) -> None:
    data = again(food, tmp_path, features=["image"], required=["image"])
    assert data.array("feature_image")[1:].any(1).all()
    counts, dropped = data.manifest["counts"], data.manifest["dropped"]
    assert dropped["record of an item without a required modality"] > 0
    assert (
        counts["interactions_read"]
        == counts["interactions"] + sum(dropped.values())
        == food.manifest["counts"]["interactions"]
    )


def test_a_required_modality_must_be_taken(food: Prepared, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.read.required: 'image' is not among data.read.features"):
        again(food, tmp_path, required=["image"])


def test_a_data_set_without_records_is_refused(tmp_path: Path) -> None:
    table = pa.table({"user": [0], "target": [1]})
    entities = {"user": (pa.table({"id": ["a"]}), 0), "item": (pa.table({"id": ["x"]}), 1)}
    written = write_prepared(str(tmp_path / "a"), splits={"train": table}, entities=entities, tables={}, config={})
    with pytest.raises(DataError, match="holds rows of its own and no records"):
        again(written, tmp_path / "b")


@pytest.mark.data
def test_movielens_with_posters_is_the_derived_set(movielens: Path, tmp_path: Path) -> None:
    text, image = {"encoder": "tfidf", "width": 16}, {"encoder": "raw", "size": 16, "thumbnail": 0, "pixels": False}
    read = {"folder": str(movielens / "ml-100k"), "posters": str(movielens / "posters_ml100k")}
    sections = {"source": MOVIELENS, "read": read, "filter": {"unseen": ["user", "item"]}}
    prepared(tmp_path / "pairs", sections | {"split": {"protocol": "ratio"}, "encode": {"text": text, "image": image}})
    read = {"root": str(tmp_path / "pairs"), "features": ["text", "image"], "required": ["image"]}
    table = {"source": SOURCE, "read": read, "filter": {"core": 5}, "split": {"protocol": "mmrec"}}
    data = prepared(tmp_path / "graph", table)
    counts = data.manifest["counts"]
    assert (counts["users"], counts["items"], counts["interactions"]) == (943, 1342, 99_126)
    assert [counts[f"{name} interactions"] for name in ("train", "val", "test")] == [79_659, 9_515, 9_952]
    assert data.manifest["split"]["sha256"].startswith("a18448eb980a")
    assert data.manifest["dropped"] == {
        "record of an item without a required modality": 185, "record of a user or item with fewer than 5 records": 689
    }  # fmt: skip
    assert data.array("feature_image")[1:].any(1).all()


def test_events_are_refused(tmp_path: Path) -> None:
    clinic = prepared(tmp_path / "a", {"source": "tests.support.clinic:Clinic", "split": {"protocol": "given"}})
    with pytest.raises(DataError, match="its records are events, expected a user and an item in each"):
        again(clinic, tmp_path / "b")


def test_the_licence_goes_with_the_data(tmp_path: Path) -> None:
    def licensed(root: Path, licence: str) -> str:
        first = prepared(root / "a", {"source": f"{__name__}:Licensed", "read": {"licence": licence}})
        return str(again(first, root / "b").manifest.get("licence", "none"))

    assert licensed(tmp_path / "one", "CC BY 4.0") == "CC BY 4.0"
    assert licensed(tmp_path / "two", "") == "none"


class LicensedConfig(Strict):
    licence: str


class Licensed(Source):
    """Twelve users who have met the same nine items."""

    Config = LicensedConfig
    config: LicensedConfig

    def open(self, place: Workplace) -> RawData:
        rows = [{"user": f"u{user}", "item": f"i{item}"} for user in range(12) for item in range(9)]
        table = place.write("records", pa.Table.from_pylist(rows))
        return RawData(records=RecordTable(table=table), licence=self.config.licence)
