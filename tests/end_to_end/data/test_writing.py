"""A data set takes the place of another in one step, wherever a job is stopped."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rec.data.config import DataConfig
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.data.writing import GENERATION, Draft
from rec.errors import RecError
from rec.storage import Storage
from tests.support.own import own_tables, quiet, write_events


class Stopped:
    """Counts writes and stops at one of them, before it or when the file is there."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, after: bool) -> None:
        self.writes, self.at, self.after = 0, at, after
        self.original = Storage.write_with
        patch.setattr(Storage, "write_with", lambda storage, *rest: self.write(storage, *rest))

    def write(self, storage: Storage, name: str, fill: Any) -> None:
        self.writes += 1
        if self.writes == self.at and not self.after:
            raise KeyboardInterrupt
        self.original(storage, name, fill)
        if self.writes == self.at:
            raise KeyboardInterrupt


def contents(data: Prepared) -> dict[str, str]:
    return {entry["name"]: entry["sha256"] for entry in data.manifest["files"]}


def config_of(folder: Path, root: Path, **filters: Any) -> DataConfig:
    sections = own_tables(folder)
    sections["filter"] = sections["filter"] | filters
    return DataConfig.model_validate({"root": str(root), **sections})


def left(root: Path) -> list[str]:
    """Return what lies under the root besides the manifest and the folder that it names."""
    folder = Storage(str(root)).read_json("manifest.json")["folder"]
    return sorted(path.name for path in root.iterdir() if path.name not in ("manifest.json", folder))


@pytest.mark.parametrize("after", [False, True])
def test_a_job_that_is_stopped_at_any_write_leaves_the_old_data_set_and_finishes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    old = config_of(tmp_path, tmp_path / "data", minimum_rating=5.0)
    new = config_of(tmp_path, tmp_path / "data", minimum_user_count=2)
    undisturbed = contents(
        prepare(config_of(tmp_path, tmp_path / "b", minimum_user_count=2), InProcess(), quiet, ["graph"]).seen_as(
            "graph"
        )
    )
    at = 0
    while True:
        at += 1
        before = contents(prepare(old, InProcess(), quiet))
        with monkeypatch.context() as patch:
            stopped = Stopped(patch, at, after)
            try:
                prepare(new, InProcess(), quiet, ["graph"])
                break
            except KeyboardInterrupt:
                pass
        there = Prepared.open(new.root)
        there.verify()
        if there.manifest["config"] == old.model_dump(mode="json", exclude={"views"}):
            assert contents(there) == before
        assert contents(prepare(new, InProcess(), quiet, ["graph"]).seen_as("graph")) == undisturbed
        assert left(tmp_path / "data") == []
        assert Prepared.open(new.root, "graph").storage.list("views/graph") == Storage(str(tmp_path / "b")).below(
            Storage(str(tmp_path / "b")).read_json("manifest.json")["folder"]
        ).list("views/graph")
    assert stopped.writes == at - 1 > 20


@pytest.mark.parametrize(
    "change",
    [
        {"read": {"records": ["nowhere.csv"]}},
        {"read": {"columns": {"user": "whom", "item": "what"}}},
        {"filter": {"minimum_user_count": 1000}},
        {"filter": {"core": 1000}},
        {"split": {"protocol": "given"}},
        {"content": {"modalities": ["text"]}},
    ],
)
def test_input_that_cannot_be_used_leaves_the_data_set_that_was_there(tmp_path: Path, change: dict[str, Any]) -> None:
    columns = {"user": "who", "item": "what", "time": "when"}
    read = {"records": [str(write_events(tmp_path / "e.csv"))], "columns": columns}
    table = {"root": str(tmp_path / "data"), "read": read}
    data = prepare(DataConfig.model_validate(table), InProcess(), quiet, ["pairs"])
    before = data.seen_as("pairs").rows("test")
    wrong = table | change | {"read": read | change.get("read", {})}
    with pytest.raises(RecError):
        prepare(DataConfig.model_validate(wrong), InProcess(), quiet)
    Prepared.open(data.root, "pairs").verify()
    assert Prepared.open(data.root, "pairs").rows("test").equals(before)
    said: list[str] = []
    prepare(DataConfig.model_validate(table), InProcess(), said.append, ["pairs"])
    (told,) = said
    assert told.startswith(f"{data.root}: already prepared from the same config; ")
    assert told.endswith("delete the folder to prepare anew)")
    assert left(tmp_path / "data") == []


def test_too_many_bad_pictures_leave_the_data_set_that_was_there(tmp_path: Path) -> None:
    config = config_of(tmp_path, tmp_path / "data")
    before = contents(prepare(config, InProcess(), quiet))
    items = pd.read_parquet(tmp_path / "items.parquet")
    items.assign(photo=[b"junk"] * len(items)).to_parquet(tmp_path / "items.parquet")
    with pytest.raises(RecError, match="10 of 10 pictures are bad"):
        prepare(config.model_copy(update={"shard_rows": 7}), InProcess(), quiet)
    there = Prepared.open(config.root)
    there.verify()
    assert contents(there) == before


def test_files_of_the_first_format_go_when_a_data_set_takes_their_place(tmp_path: Path) -> None:
    for name in ("train/part-00000.parquet", "text.npy", "raw/items.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"old")
    entries = [{"name": name, "bytes": 3} for name in ("train/part-00000.parquet", "text.npy")]
    Storage(str(tmp_path)).write_json("manifest.json", {"format": 1, "files": entries})
    draft = Draft(str(tmp_path))
    draft.array("text", np.zeros(3))
    draft.finish({"splits": {}, "counts": {}, "modalities": [], "config": {}})
    files = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert files == [f"{draft.folder}/text.npy", "manifest.json"]
    assert GENERATION.fullmatch(draft.folder)


def test_a_data_set_of_the_first_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    Storage(str(tmp_path)).write_json("manifest.json", {"format": 1, "files": []})
    with pytest.raises(RecError, match="format 1, expected 2; run `rec prepare CONFIG` again"):
        Prepared.open(str(tmp_path))
