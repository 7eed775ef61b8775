"""Preparing: what is said, what is refused, what is left when it fails."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rec.data import prepare as passes
from rec.data.config import DataConfig
from rec.data.generated.catalogue import CatalogueConfig
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.data.stages import records
from rec.errors import ConfigError, DataError
from tests.conftest import planted_config
from tests.support.own import own, own_tables, prepared, quiet, write_events


def test_counts_are_of_what_a_model_may_train_on(tmp_path: Path) -> None:
    data = prepare(own(tmp_path / "out", write_events(tmp_path / "e.csv")), InProcess(), quiet)
    assert data.array("item_total").sum() == 36
    assert data.array("item_count").sum() == 36 - 2 * 6
    assert data.array("item_count")[0] == 0


def test_many_partitions_and_shards_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = write_events(tmp_path / "e.parquet", users=40)
    one = prepare(own(tmp_path / "one", events), InProcess(), quiet).seen_as("sequences")
    monkeypatch.setattr(records, "ROWS_PER_PARTITION", 30)
    monkeypatch.setattr(passes, "ROWS_PER_PARTITION", 30)
    many = prepare(own(tmp_path / "many", events, shard_rows=3), InProcess(), quiet).seen_as("sequences")
    assert len(many.files("train")) > 5
    assert len(many.manifest["records"]) > 5

    def by_id(data: Prepared) -> dict[str, Any]:
        names = data.users["id"].to_pylist()
        return {names[r["user"]]: (r["history"], r["target"]) for r in data.rows("val").to_pylist()}

    assert by_id(one) == by_id(many)
    assert sorted(many.rows("train")["user"].to_pylist()) == list(range(40))


def test_prepared_once_is_kept_and_another_config_prepares_again(tmp_path: Path) -> None:
    events = write_events(tmp_path / "e.csv")
    prepare(own(tmp_path / "out", events), InProcess(), quiet)
    said: list[str] = []
    prepare(own(tmp_path / "out", events), InProcess(), said.append)
    assert "already prepared" in said[0]
    again = prepare(own(tmp_path / "out", events, filter={"minimum_user_count": 7}), InProcess(), said.append)
    assert again.num_users == 2


def test_other_views_do_not_prepare_again(tmp_path: Path) -> None:
    events = write_events(tmp_path / "e.csv")
    prepare(own(tmp_path / "out", events), InProcess(), quiet)
    said: list[str] = []
    prepare(own(tmp_path / "out", events, views=["graph"]), InProcess(), said.append, ["pairs"])
    assert [line.partition(": ")[2].partition(";")[0] for line in said] == [
        "already prepared from the same config",
        "view 'graph': rows 24 train, 6 val, 6 test",
        "view 'pairs': rows 6 train, 6 val, 6 test",
    ]


def test_what_was_read_kept_dropped_and_split_is_said(tmp_path: Path) -> None:
    events = write_events(tmp_path / "e.csv")
    said: list[str] = []
    data = prepare(own(tmp_path / "out", events, filter={"minimum_user_count": 6}), InProcess(), said.append)
    assert said == [
        f"{data.root}: read 36 records, kept 26; 4 users, 9 items; dropped 10 records of 2 users "
        "with fewer than 6 records",
        f"{data.root}: split 'leave-one-out': 18 train, 4 val, 4 test; hash {data.manifest['split']['sha256'][:12]}",
    ]


def test_items_that_their_table_lacks_are_said(tmp_path: Path) -> None:
    pd.DataFrame({"what": [f"i{i}" for i in range(7)]}).to_csv(tmp_path / "items.csv", index=False)
    said: list[str] = []
    config = own(tmp_path / "out", write_events(tmp_path / "e.csv"), read={"items": str(tmp_path / "items.csv")})
    data = prepare(config, InProcess(), said.append)
    assert said[0] == f"{data.root}: 2 of 9 items are in no row of {tmp_path}/items.csv, such as 'i7'"
    assert data.num_items == 9


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"filter": {"minimum_user_count": 7}},
            r"^data.filter.minimum_user_count: 7, but .*/out was prepared with 0; ",
        ),
        ({"split": {"protocol": "time"}}, r"^data.split.protocol: 'time', but .* with 'leave-one-out'"),
        (
            {"text": {"width": 4}},
            r"^data.text.width: 4, but .* prepared with None; prepare again, name another data.root",
        ),
        ({"read": {"keep": ["mood"]}}, r"^data.read.keep: \['mood'\], but .* with \[\]"),
        (
            {"content": {"length": "unit"}, "encode": {"shard_items": 3}},
            r"^data.content.length: 'unit', but [^;]*; prep",
        ),
    ],
)
def test_a_config_that_says_otherwise_than_the_data_set_is_refused(
    tmp_path: Path, sections: dict[str, Any], words: str
) -> None:
    events = write_events(tmp_path / "e.csv")
    data = prepare(own(tmp_path / "out", events), InProcess(), quiet)
    with pytest.raises(ConfigError, match=words):
        data.refuse_differences(own(tmp_path / "out", events, **sections))


def test_many_differences_are_told_in_part(tmp_path: Path) -> None:
    data = prepare(own(tmp_path / "out", write_events(tmp_path / "e.csv")), InProcess(), quiet)
    read = CatalogueConfig(interactions=2_000, users=9, items=9, topics=3, seed=1, shards=2)
    others = DataConfig(root="elsewhere", source="rec.data.generated.catalogue:PlantedCatalogue", read=read)
    with pytest.raises(ConfigError, match=r"^data.source: 'rec.data.generated.*; and 2 more; prepare again"):
        data.refuse_differences(others)


@pytest.mark.parametrize("views", [[], ["pairs"]])
def test_what_changes_no_data_or_is_not_said_may_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: list[str]
) -> None:
    events = write_events(tmp_path / "e.csv")
    data = prepare(own(tmp_path / "out", events, filter={"minimum_user_count": 5}), InProcess(), quiet)
    data.refuse_differences(DataConfig(root=data.root))
    monkeypatch.chdir(tmp_path)
    data.refuse_differences(own(tmp_path / "moved", Path("e.csv"), shard_rows=3, views=views))
    data.manifest["config"]["filter"].pop("maximum_unknown_share")  # a key that is newer than the data set
    data.refuse_differences(own(tmp_path / "out", events, filter={"maximum_unknown_share": 0.05}))


@pytest.mark.parametrize(
    ("read", "others", "message"),
    [
        ({"records": ["nowhere.csv"]}, {}, "nowhere.csv: no such file or folder"),
        ({"columns": {"user": "whom", "item": "what"}}, {}, r"no column 'whom' .*the file has who, what, when"),
        (
            {"columns": {"user": "who", "item": "what", "time": "what"}},
            {},
            r"e.parquet: row 1, column 'what': found 'i0', expected",
        ),
        ({}, {"filter": {"minimum_item_count": 1000}}, r"e.parquet: no record is left of 36 \(dropped"),
        (
            {},
            {"filter": {"minimum_user_count": 1000}},
            r"no record is left .*36 records of 6 users with fewer than 1000",
        ),
        ({"sha1": "0" * 40}, {}, "git blob hash .* expected 0000"),
    ],
)
def test_bad_input_is_said_and_nothing_becomes_readable(
    tmp_path: Path, read: dict[str, Any], others: dict[str, Any], message: str
) -> None:
    config = own(tmp_path / "out", write_events(tmp_path / "e.parquet"), read=read, **others)
    with pytest.raises(DataError, match=message):
        prepare(config, InProcess(), quiet)
    with pytest.raises(DataError, match="no prepared data set here"):
        Prepared.open(config.root)


@pytest.mark.parametrize(
    ("read", "others", "message"),
    [
        ({"records": []}, {}, r"data.read.records: no path given"),
        (
            {},
            {"filter": {"minimum_user_count": 3}},
            r"minimum_user_count: 3, expected at least 4: a history and a target",
        ),
        ({}, {"split": {"protocol": "given"}}, r"data.split.protocol: 'given' needs a source that brings the split"),
    ],
)
def test_keys_that_do_not_fit_are_refused(
    tmp_path: Path, read: dict[str, Any], others: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(own(tmp_path / "out", write_events(tmp_path / "e.csv"), read=read, **others), InProcess(), quiet)


def test_a_damaged_data_set_is_refused(tmp_path: Path) -> None:
    data = prepare(own(tmp_path / "out", write_events(tmp_path / "e.csv")), InProcess(), quiet).seen_as("sequences")
    path = Path(data.storage.path(data.files("train")[0][0]))
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="checksum differs"):
        data.verify()
    path.write_bytes(content[:-5])
    with pytest.raises(DataError, match=r"bytes, expected .*run `rec prepare CONFIG` again"):
        Prepared.open(data.root, "sequences")
    Path(data.storage.path("user.parquet")).unlink()
    with pytest.raises(DataError, match=r"user.parquet: missing; run `rec prepare CONFIG` again"):
        Prepared.open(data.root)


def test_the_planted_catalogue_is_what_it_says(tmp_path: Path) -> None:
    data = prepare(planted_config(tmp_path), InProcess(), quiet).seen_as("sequences")
    assert data.manifest["counts"]["interactions"] == pytest.approx(6000, rel=0.02)
    followed = np.array(data.users["followed"].to_pylist())
    assert set(followed.sum(1)) == {1, 2}
    assert data.items["image"][0].as_py()[:4] == b"\x89PNG"
    assert data.array("text").shape == (121, 3, 16)
    assert isinstance(data.array("text"), np.memmap)
    assert np.abs(data.array("text")[0]).max() == 0
    rows = data.rows("test").to_pylist()
    assert all(len({*r["history"], r["target"]}) == len(r["history"]) + 1 for r in rows)


def test_own_text_columns_are_taken_and_missing_ones_are_written(tmp_path: Path) -> None:
    items = pd.DataFrame({"what": [f"i{i}" for i in range(9)], "title": "T", "mood": ["calm", ""] + ["wild"] * 7})
    items.to_csv(tmp_path / "items.csv", index=False)
    read = {"items": str(tmp_path / "items.csv"), "keep": ["mood", "title"]}
    text = {"modalities": ["mood", "acting"], "width": 4}
    data = prepare(own(tmp_path / "out", write_events(tmp_path / "e.csv"), read=read, text=text), InProcess(), quiet)
    assert data.items["mood"].to_pylist()[:3] == ["calm", None, "wild"]
    assert data.items["acting"].to_pylist() == [None] * 9
    assert data.array("text").any(2).sum(0).tolist() == [8, 0]  # what is not there has no vector


def test_hashing_gives_texts_of_items_the_same_vectors_whatever_else_there_is(tmp_path: Path) -> None:
    found = []
    for name, last in (("one", "wild"), ("two", "quiet and long")):
        items = "".join(f"i{n},{'calm night' if n < 8 else last}\n" for n in range(9))
        (tmp_path / f"{name}.csv").write_text("what,mood\n" + items)
        read = {
            "items": str(tmp_path / f"{name}.csv"),
            "keep": ["mood"],
            "columns": {"user": "who", "item": "what", "time": "when", "item_text": ["mood"]},
        }
        sections = {"text": {"modalities": ["mood"], "encoder": "hashing", "width": 6}}
        sections["encode"] = {"text": {"encoder": "hashing", "width": 5, "tokenizer": ""}}
        config = own(tmp_path / name / "out", write_events(tmp_path / "e.csv"), read=read, **sections)
        data = prepare(config, InProcess(), quiet)
        found.append((np.array(data.array("text")), np.array(data.array("item_text"))))
    assert [array.shape for array in found[0]] == [(10, 1, 6), (10, 5)]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one[1:9], other[1:9])
        assert (one[9] != other[9]).any()


def test_a_transformers_encoder_gives_a_vector_per_text(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra `encoders`")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "mood", "acting", "calm"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    shape = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "initializer_range": 1.0,
    }
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(vocab_size=len(vocabulary), **shape))
    tokenizer.save_pretrained(tmp_path / "bert")
    model.save_pretrained(tmp_path / "bert")
    items = "".join(f"i{n},mood calm,acting\n" for n in range(9))
    (tmp_path / "items.csv").write_text("what,mood,acting\n" + items)
    read = {"items": str(tmp_path / "items.csv"), "keep": ["mood", "acting"]}
    for pooling in ("mean", "cls"):
        text = {
            "modalities": ["mood", "acting"],
            "encoder": str(tmp_path / "bert"),
            "pooling": pooling,
            "batch_size": 4,
        }
        config = own(tmp_path / pooling, write_events(tmp_path / "e.csv"), read=read, text=text)
        vectors = prepare(config, InProcess(), quiet).array("text")
        assert vectors.shape == (10, 2, 8)
        assert np.allclose(vectors[1], vectors[2], atol=1e-5)  # same texts, another batch
        assert not np.allclose(vectors[1, 0], vectors[1, 1], atol=1e-3)


def test_a_table_that_is_not_there_is_told_with_the_key_that_makes_it(tmp_path: Path) -> None:
    data = prepare(own(tmp_path / "out", write_events(tmp_path / "e.csv")), InProcess(), quiet)
    for name, key in (
        ("text", "data.text"),
        ("item_image", "data.encode.image.encoder"),
        ("item_present", "data.encode"),
    ):
        with pytest.raises(DataError, match=f"no table '{name}'; it is made by {key}: prepare again with that"):
            data.array(name)
    with pytest.raises(DataError, match=r"it is made by a source that brings 'audio'"):
        data.array("graph_audio_edge")
    with pytest.raises(
        DataError, match=r"made by data.content.modalities with 'text' \(vectors by data.encode.text.enc"
    ):
        data.array("feature_text")


def test_the_manifest_is_json_with_every_file(planted: Prepared) -> None:
    root = Path(planted.root)
    manifest = json.loads((root / "manifest.json").read_text())
    below = {
        str(path.relative_to(planted.storage.root)) for path in Path(planted.storage.root).rglob("*") if path.is_file()
    }
    beside = {"encoding.json", "fitted-text.safetensors", "fitted-text_concatenated.safetensors"}
    assert below == {f["name"] for f in planted.manifest["files"]} | {"views/sequences/view.json"} | beside
    assert {path.name for path in root.iterdir()} == {"manifest.json", manifest["folder"]}
    table = pq.read_table(planted.storage.path(planted.files("train")[0][0]))
    assert table.schema.field("history").type == pa.list_(pa.int32())


def test_own_tables_with_everything_set_are_prepared_twice_alike(tmp_path: Path) -> None:
    sections = own_tables(tmp_path, image={"encoder": "raw", "size": 8}) | {"content": {"modalities": ["image"]}}
    found = [prepared(tmp_path / name, sections).manifest["files"] for name in ("a", "b")]
    assert found[0] == found[1]
