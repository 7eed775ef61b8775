"""Preparing on Ray gives what preparing in this process gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.data import prepare as passes
from rec.data.config import DataConfig
from rec.data.modalities.index import index_of
from rec.data.modalities.knowledge_config import KnowledgeConfig
from rec.data.modalities.retrieval import Retriever
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.data.schema import Workplace
from rec.data.sources.mimic import MimicConfig, MimicIII
from rec.data.sources.tables import ColumnNames, TablesConfig
from rec.data.stages import modalities, records
from rec.errors import DataError
from rec.nn.history import COLUMNS
from rec.runtime import datasets
from rec.runtime.datasets import SharedReader, StreamingReader, fits_shared_memory, share
from rec.runtime.prepare import OnRay, prepare
from rec.storage import Storage
from tests.conftest import planted_config
from tests.support import wards
from tests.support.films import film_tables

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def quiet(_: str) -> None:
    """Say nothing."""


def test_ray_and_one_process_prepare_the_same(
    ray_runtime: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "ROWS_PER_PARTITION", 2000)
    monkeypatch.setattr(passes, "ROWS_PER_PARTITION", 2000)
    here = passes.prepare(planted_config(tmp_path / "here"), InProcess(), quiet, ["sequences"]).seen_as("sequences")
    there = prepare(planted_config(tmp_path / "there"), quiet, ["sequences"]).seen_as("sequences")
    left = ("config", "files", "folder")
    assert {k: v for k, v in here.manifest.items() if k not in left} == {
        k: v for k, v in there.manifest.items() if k not in left
    }
    assert len(here.manifest["records"]) > 2
    assert len(here.files("train")) > 3
    found = [{e["name"]: e["sha256"] for e in data.manifest["files"]} for data in (here, there)]
    assert found[0].keys() == found[1].keys()
    assert {name for name in found[0] if found[0][name] != found[1][name]} <= {"text.npy", "text_concatenated.npy"}
    for split in ("train", "val", "test"):
        assert here.rows(split).equals(there.rows(split))
    assert here.items.equals(there.items)
    assert here.users.equals(there.users)
    np.testing.assert_allclose(here.array("text"), there.array("text"), atol=1e-6)


def test_ray_and_one_process_encode_the_same_texts_of_events(ray_runtime: None, tmp_path: Path) -> None:
    keys = {"visits": 600, "medications": 40, "conditions": 20, "shards": 3}
    table: dict[str, Any] = {"source": "rec.data.generated.visits:PlantedVisits", "read": keys}
    table |= {"split": {"protocol": "given"}}
    table |= {"encode": {"shard_items": 250, "actors": 2, "text": {"encoder": "tfidf", "width": 8, "tokenizer": ""}}}
    configs = [DataConfig.model_validate({"root": str(tmp_path / name), **table}) for name in ("here", "there")]
    here = passes.prepare(configs[0], InProcess(), quiet, ["visits"]).seen_as("visits")
    there = prepare(configs[1], quiet, ["visits"]).seen_as("visits")
    assert here.manifest["encoded"] == there.manifest["encoded"]
    assert here.manifest["encoded"]["text_all"]["rows"] == 600
    found = [{e["name"]: e["sha256"] for e in data.manifest["files"]} for data in (here, there)]
    assert found[0].keys() == found[1].keys()
    assert all("text" in name for name in found[0] if found[0][name] != found[1][name])  # whose last bits differ
    for name in ("text_diagnoses", "text_symptoms", "text_all", "medication_text"):
        np.testing.assert_allclose(here.array(name), there.array(name), atol=1e-6)


def test_visits_gathered_by_ray_are_those_of_one_process(ray_runtime: None, tmp_path: Path) -> None:
    wards.mimic_iii(tmp_path / "iii")
    (tmp_path / "iii" / "PRESCRIPTIONS.csv").unlink()
    rows = wards.prescriptions()
    for number in range(3):  # files are read by tasks of their own
        wards.write(tmp_path / "iii" / "PRESCRIPTIONS" / f"{number}.parquet", rows[number::3], upper=True)
    keys = {"folder": str(tmp_path / "iii"), **wards.maps(tmp_path / "maps"), "mapping": "route_aware"}
    config = MimicConfig(minimum_visits=1, **keys)  # type: ignore[arg-type]
    here, there = (
        MimicIII(config).open(Workplace(Storage(str(tmp_path / name)), runner, quiet))
        for name, runner in (("here", InProcess()), ("there", OnRay()))
    )
    assert here.records.table.equals(there.records.table)
    assert here.dropped == there.dropped
    assert len(here.records.table) == 7


def test_knowledge_indexed_by_ray_is_that_of_one_process(ray_runtime: None, tmp_path: Path) -> None:
    for number in range(3):  # files are read by tasks of their own
        rows = "".join(f"Film {n},a person of place{n} meets another\n" for n in range(number, 60, 3))
        (tmp_path / f"{number}.csv").write_text(f"title,text\n{rows}")
    keys = KnowledgeConfig(paths=tuple(str(tmp_path / f"{number}.csv") for number in range(3)), width=8)
    items = [{"title": f"Film {n}"} for n in range(61)]
    here, there = (
        Retriever(index_of(keys, str(tmp_path / name), runner, quiet), keys).retrieve(items)
        for name, runner in (("here", InProcess()), ("there", OnRay()))
    )
    assert here == there
    assert [len(one) for one in here] == [1] * 60 + [0]


def test_texts_by_template_on_ray_are_those_of_one_process(
    ray_runtime: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modalities, "ITEMS_PER_FILE", 8)
    sections = film_tables(tmp_path, 30) | {"modalities": {"batch": 8}}
    configs = [DataConfig.model_validate({"root": str(tmp_path / name), **sections}) for name in ("here", "there")]
    here, there = passes.prepare(configs[0], InProcess(), quiet), prepare(configs[1], quiet)
    assert here.manifest["written"] == there.manifest["written"]
    assert [rows for _, rows in here.manifest["written"]["files"]] == [16, 16, 16, 12]
    found = [{e["name"]: e["sha256"] for e in data.manifest["files"]} for data in (here, there)]
    assert found[0].keys() == found[1].keys()
    assert {name for name in found[0] if found[0][name] != found[1][name]} <= {"text.npy", "text_concatenated.npy"}


def test_an_error_in_a_task_is_the_drivers_error(ray_runtime: None, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user,item\n1,2\n")
    read = TablesConfig(records=(str(tmp_path / "e.csv"),), columns=ColumnNames(item="thing"))
    with pytest.raises(DataError, match=r"e.csv: no column 'thing'.*the file has user, item"):
        prepare(DataConfig(root=str(tmp_path / "out"), read=read), quiet)


def test_results_keep_the_order_of_tasks(ray_runtime: None) -> None:
    assert OnRay().map(lambda x: x * x, list(range(20)), "square") == [x * x for x in range(20)]


def test_streamed_and_shared_files_are_the_files(ray_runtime: None, planted: Prepared) -> None:
    import ray

    names = [name for name, _ in planted.files("train")]
    order = [names[i] for i in (3, 0, 4, 1, 2)]
    streamed = list(StreamingReader(planted, COLUMNS, "test").read(order))
    for name, table in zip(order, streamed, strict=True):
        assert table.equals(planted._parquet(name))
    assert fits_shared_memory(planted, ("train",))
    blocks = ray.get(share(planted, "train", COLUMNS))
    assert sum(len(b) for b in blocks) == planted.num_users


@pytest.mark.parametrize("small", [0, datasets.SMALL_BYTES], ids=["by Ray Data", "by the driver"])
def test_workers_are_offered_the_split_that_they_read(
    ray_runtime: None, planted: Prepared, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    import ray

    monkeypatch.setattr(datasets, "SMALL_BYTES", small)

    class Offers:
        def offered(self, split: str) -> list[Any] | None:
            return blocks if split == "train" else None

    blocks = share(planted, "train", COLUMNS)
    monitor = ray.remote(Offers).options(num_cpus=0).remote()
    reader = SharedReader(planted.storage, COLUMNS, monitor)
    names = [name for name, _ in planted.files("train")]
    for name, table in zip(names, reader.read(names), strict=True):
        assert table.equals(planted._parquet(name))
    assert set(reader.cache) == set(names)
    ray.kill(monitor)


def test_features_of_reviews_are_found_on_ray_as_in_one_process(ray_runtime: None, tmp_path: Path) -> None:
    names = {"reviewerID": "u{}", "asin": "i{}", "reviewText": "Bought in {}. It has a clear sound."}
    for part in range(2):
        rows = [{key: text.format(n % 7 + part) for key, text in names.items()} for n in range(40)]
        lines = [json.dumps(row | {"overall": n % 5 + 1, "unixReviewTime": n}) for n, row in enumerate(rows)]
        (tmp_path / f"{part}.json").write_text("\n".join(lines))
    found = []
    for place, make in ((tmp_path / "a", prepare), (tmp_path / "b", lambda c, s: passes.prepare(c, InProcess(), s))):
        table = {
            "root": str(place),
            "source": "rec.data.sources.reviews:AmazonReviews",
            "read": {"reviews": [str(tmp_path / f"{part}.json") for part in range(2)]},
            "split": {"protocol": "time"},
        }
        found.append(make(DataConfig.model_validate(table), quiet))
    assert found[0].records().equals(found[1].records())
    assert found[0].manifest["counts"]["interactions"] == 80
