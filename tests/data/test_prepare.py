"""Preparing: own tables, public files, what is refused, what is left when it fails."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rec.data import prepare as passes
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.errors import DataError
from rec.evaluation.tasks.ranking.popularity_groups import groups, popular_items, popular_share
from rec.keys import ColumnNames, DataConfig, PlantedConfig, SourceConfig, TextConfig
from tests.conftest import planted_config


def quiet(_: str) -> None:
    """Say nothing."""


def write_events(path: Path, users: int = 6, items: int = 9) -> Path:
    frame = pd.DataFrame(
        [(f"u{u}", f"i{(u + k) % items}", 100 + k) for u in range(users) for k in range(5 + u % 3)],
        columns=["who", "what", "when"],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return path


def own(root: Path, events: Path, **changes: object) -> DataConfig:
    columns = ColumnNames(user="who", item="what", time="when")
    source = {"kind": "table", "interactions": (str(events),), "columns": columns} | changes
    return DataConfig(root=str(root), source=SourceConfig(**source))


@pytest.mark.parametrize("name", ["events.parquet", "events.csv"])
def test_own_tables_become_rows(tmp_path: Path, name: str) -> None:
    data = prepare(own(tmp_path / "out", write_events(tmp_path / name)), InProcess(), quiet)
    assert data.manifest["counts"] == {"interactions_read": 36, "interactions": 36, "users": 6, "items": 9}
    rows = data.rows("test").to_pylist()
    assert rows[0] == {"user": 0, "history": [1, 2, 3, 4], "target": 5}
    assert data.users["id"].to_pylist() == [f"u{u}" for u in range(6)]
    assert data.items["id"].to_pylist() == [f"i{i}" for i in range(9)]
    data.verify()


def test_counts_are_of_what_a_model_may_train_on(tmp_path: Path) -> None:
    data = prepare(own(tmp_path / "out", write_events(tmp_path / "e.csv")), InProcess(), quiet)
    assert data.array("item_total").sum() == 36
    assert data.array("item_count").sum() == 36 - 2 * 6
    assert data.array("item_count")[0] == 0


def test_many_partitions_and_shards_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = write_events(tmp_path / "e.parquet", users=40)
    one = prepare(own(tmp_path / "one", events), InProcess(), quiet)
    monkeypatch.setattr(passes, "ROWS_PER_PARTITION", 30)
    many = prepare(own(tmp_path / "many", events).model_copy(update={"shard_rows": 3}), InProcess(), quiet)
    assert len(many.files("train")) > 5

    def by_id(data: Prepared) -> dict:
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
    again = prepare(own(tmp_path / "out", events, minimum_user_count=7), InProcess(), said.append)
    assert again.num_users == 2


def test_what_a_config_says_otherwise_than_the_data_set_is_told_key_by_key(tmp_path: Path) -> None:
    events = write_events(tmp_path / "e.csv")
    data = prepare(own(tmp_path / "out", events), InProcess(), quiet)
    said: list[str] = []
    data.tell_differences(own(tmp_path / "moved", events), said.append)
    data.tell_differences(DataConfig(root=data.root), said.append)
    assert not said
    data.tell_differences(own(tmp_path / "out", events, minimum_user_count=7), said.append)
    assert said == [
        f"note: {data.root} was prepared with data.source.minimum_user_count = "
        f"{SourceConfig().minimum_user_count}, the config says 7"
    ]
    planted = PlantedConfig(interactions=2_000, users=9, items=9, topics=3, seed=1, shards=2)
    others = DataConfig(root="", source=SourceConfig(minimum_user_count=7, planted=planted))
    said.clear()
    data.tell_differences(others, said.append)
    assert len(said) == 6
    assert said[-1] == "note: and so do 2 keys more"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interactions": ("nowhere.csv",)}, "nowhere.csv: no such file or folder"),
        ({"interactions": ()}, "data.source.interactions: no path given"),
        ({"columns": ColumnNames(user="whom", item="what")}, r"no column 'whom' .*the file has who, what, when"),
        ({"columns": ColumnNames(user="who", item="what", time="what")}, "column 'what' is .*string, expected numbers"),
        ({"minimum_item_count": 1000}, "no interaction is left of 36"),
        ({"minimum_user_count": 1000}, "no user is left .*user with fewer than 1000 events"),
        ({"sha1": "0" * 40}, "git blob hash .* expected 0000"),
    ],
)
def test_bad_input_is_said_and_nothing_becomes_readable(tmp_path: Path, change: dict, message: str) -> None:
    config = own(tmp_path / "out", write_events(tmp_path / "e.parquet"), **change)
    with pytest.raises(DataError, match=message):
        prepare(config, InProcess(), quiet)
    with pytest.raises(DataError, match="no prepared data set here"):
        Prepared.open(config.root)


def test_bad_input_leaves_the_data_set_that_was_there(tmp_path: Path) -> None:
    events = write_events(tmp_path / "e.csv")
    before = prepare(own(tmp_path / "out", events), InProcess(), quiet)
    with pytest.raises(DataError, match="no user is left"):
        prepare(own(tmp_path / "out", events, minimum_user_count=1000), InProcess(), quiet)
    after = Prepared.open(before.root)
    after.verify()
    assert after.rows("test").equals(before.rows("test"))


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really", b"\x00" * 100])
def test_a_broken_parquet_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken.parquet: not a readable Parquet file"):
        prepare(own(tmp_path / "out", path), InProcess(), quiet)


def test_a_damaged_data_set_is_refused(tmp_path: Path) -> None:
    data = prepare(own(tmp_path / "out", write_events(tmp_path / "e.csv")), InProcess(), quiet)
    path = tmp_path / "out" / data.files("train")[0][0]
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="checksum differs"):
        data.verify()
    path.write_bytes(content[:-5])
    with pytest.raises(DataError, match=r"bytes, expected .*run `rec prepare CONFIG` again"):
        Prepared.open(data.root)


def test_dropped_rows_are_reported_by_reason(tmp_path: Path) -> None:
    frame = pd.DataFrame({"who": ["a"] * 6 + [None, "b"], "what": [*list("uvwxyzu"), "v"], "when": range(8)})
    frame.to_parquet(tmp_path / "e.parquet")
    data = prepare(own(tmp_path / "out", tmp_path / "e.parquet"), InProcess(), quiet)
    assert data.manifest["dropped"] == {"no user": 1, "user with fewer than 4 events": 1}


def test_the_planted_catalogue_is_what_it_says(tmp_path: Path) -> None:
    data = prepare(planted_config(tmp_path), InProcess(), quiet)
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
    items = pd.DataFrame(
        {"item": [f"i{i}" for i in range(9)], "title": "T", "plot": "", "mood": ["calm", ""] + ["wild"] * 7}
    )
    items.to_csv(tmp_path / "items.csv", index=False)
    config = own(tmp_path / "out", write_events(tmp_path / "e.csv"), items=str(tmp_path / "items.csv"))
    text = TextConfig(modalities=("mood", "acting"), width=4)
    data = prepare(config.model_copy(update={"text": text}), InProcess(), quiet)
    assert data.items["mood"].to_pylist()[:3] == ["calm", "mood", "wild"]
    assert data.items["acting"].to_pylist() == ["acting"] * 9


def test_movielens_zip_and_folder_give_the_same(tmp_path: Path) -> None:
    rows = [(1, 10, 5, 100), (1, 11, 4, 100), (1, 12, 4, 90), (1, 13, 3, 200), (2, 10, 2, 5)]
    (tmp_path / "ml").mkdir()
    (tmp_path / "ml" / "u.data").write_text("".join("\t".join(map(str, r)) + "\n" for r in rows))
    (tmp_path / "ml" / "u.item").write_bytes(
        "".join(
            f"{i}|Caf\xe9 {i} (1990)|01-Jan-1990||url|{'|'.join('1' if g == 1 else '0' for g in range(19))}\n"
            for i in range(10, 14)
        ).encode("latin-1")
    )
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        for name in ("u.data", "u.item"):
            archive.write(tmp_path / "ml" / name, f"ml-100k/{name}")
    (tmp_path / "dat").mkdir()
    (tmp_path / "dat" / "ratings.dat").write_text("".join("::".join(map(str, r)) + "\n" for r in rows))
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n" + "".join(",".join(map(str, r)) + "\n" for r in rows)
    )
    results = []
    for name, items in (("ml", "ml"), ("ml.zip", "ml.zip"), ("dat", "ml"), ("csv", "ml")):
        source = SourceConfig(kind="movielens", interactions=(str(tmp_path / name),), items=str(tmp_path / items))
        data = prepare(DataConfig(root=str(tmp_path / "out" / name), source=source), InProcess(), quiet)
        results.append((data.rows("test").to_pylist(), data.items.to_pylist()))
    assert results[0][0] == [{"user": 0, "history": [3, 1, 2], "target": 4}]
    assert results[0][1][0]["title"] == "Café 10"
    assert (results[0][1][0]["year"], results[0][1][0]["genres"]) == ("1990", "Action")
    assert all(result == results[0] for result in results)


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
    for pooling in ("mean", "cls"):
        text = TextConfig(modalities=("mood", "acting"), encoder=str(tmp_path / "bert"), pooling=pooling, batch_size=4)
        config = own(tmp_path / pooling, write_events(tmp_path / "e.csv")).model_copy(update={"text": text})
        vectors = prepare(config, InProcess(), quiet).array("text")
        assert vectors.shape == (10, 2, 8)
        assert np.allclose(vectors[1], vectors[2], atol=1e-5)  # same texts, another batch
        assert not np.allclose(vectors[1, 0], vectors[1, 1], atol=1e-3)


@pytest.mark.data
def test_movielens_100k_counts(movielens: Path, tmp_path: Path) -> None:
    source = SourceConfig(
        kind="movielens", interactions=(str(movielens / "ml-100k"),), items=str(movielens / "ml-100k")
    )
    data = prepare(DataConfig(root=str(tmp_path), source=source), InProcess(), quiet)
    assert data.manifest["counts"] == {
        "interactions_read": 100_000,
        "interactions": 100_000,
        "users": 943,
        "items": 1682,
    }
    lines = [line.split() for line in (movielens / "ml-100k" / "ml-100k.txt").read_text().splitlines()]
    expected: dict[int, list[int]] = {}
    for user, item in lines:
        expected.setdefault(int(user), []).append(int(item))
    for row in data.rows("test").to_pylist():
        assert [*row["history"], row["target"]] == expected[row["user"] + 1]


@pytest.mark.data
def test_movielens_1m_counts_order_and_groups(movielens: Path, tmp_path: Path) -> None:
    source = SourceConfig(
        kind="sasrec",
        interactions=(str(movielens / "ml-1m" / "ml-1m.txt"),),
        sha1="9ab8e3edb8742f8d8cc4911e3dee25e82a6fcc24",
        items=str(movielens / "ml-1m" / "movies.dat"),
        item_ids=str(movielens / "ml-1m" / "sas_to_original_items.txt"),
        metadata=(str(movielens / "metadata" / "ml1m_movies_extrainfos.dat"),),
    )
    data = prepare(DataConfig(root=str(tmp_path), source=source), InProcess(), quiet)
    assert data.manifest["counts"] == {
        "interactions_read": 999_611,
        "interactions": 999_611,
        "users": 6040,
        "items": 3416,
    }
    assert sum(plot != "" for plot in data.items["plot"].to_pylist()) == 3410
    rows = data.rows("test")
    histories = [np.append(h, t) for h, t in zip(rows["history"].to_numpy(), rows["target"].to_numpy(), strict=True)]
    # The specification's table: share, Niche / Diverse / Blockbuster.
    for share, expected in ((0.0005, [180, 3190, 2670]), (0.001, [1998, 3641, 401]), (0.0015, [4270, 1650, 120])):
        popular = popular_items(np.asarray(data.array("item_total")), share)
        assert np.bincount(groups(popular_share(histories, popular))).tolist() == expected


def test_the_manifest_is_json_with_every_file(planted: Prepared) -> None:
    manifest = json.loads(planted.storage.read("manifest.json"))
    assert {f["name"] for f in manifest["files"]} >= {name for name, _ in planted.files("train")}
    assert "work" not in planted.storage.list()
    table = pq.read_table(planted.storage.path(planted.files("train")[0][0]))
    assert table.schema.field("history").type == pa.list_(pa.int32())
