"""Own tables: columns by any name, what has no effect, what is missing."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rec.errors import ConfigError, DataError
from tests.data.own import own, own_tables, prepared, write_events


@pytest.mark.parametrize("name", ["events.parquet", "events.csv"])
def test_own_tables_become_rows(tmp_path: Path, name: str) -> None:
    data = prepared(tmp_path / "out", {"read": own(tmp_path, write_events(tmp_path / name)).read}, view="sequences")
    counts = {"interactions_read": 36, "interactions": 36, "users": 6, "items": 9}
    assert data.manifest["counts"] == counts | {"train interactions": 24, "val interactions": 6, "test interactions": 6}
    assert data.rows("test").to_pylist()[0] == {"user": 0, "history": [1, 2, 3, 4], "target": 5}
    assert data.users["id"].to_pylist() == [f"u{u}" for u in range(6)]
    assert data.items["id"].to_pylist() == [f"i{i}" for i in range(9)]
    data.verify()


def test_own_tables_of_users_and_items_are_prepared(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", own_tables(tmp_path))
    counts = data.manifest["counts"]
    assert (counts["interactions"], counts["users"], counts["items"]) == (60, 12, 10)
    assert data.items["id"].to_pylist() == [f"i{n}" for n in range(10)]
    assert data.array("user_attributes").shape == (12, 3)
    assert not data.manifest["synthetic_labels"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"user": "whom"},
            r"pairs.parquet: no column 'whom' \(data.read.columns.user\); the file has who, sku, stars; did",
        ),
        (
            {"image": "picture"},
            r"items.parquet: no column 'picture' \(data.read.columns.image\); the file has sku, words",
        ),
        (
            {"user_attributes": ["age", "size"]},
            r"users.csv: no column 'size' \(data.read.columns.user_attributes\[1\]\); the file has who, age, sex",
        ),
        ({"rating": "words"}, r"pairs.parquet: no column 'words' \(data.read.columns.rating\)"),
    ],
)
def test_a_missing_column_is_named_with_its_file(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        prepared(tmp_path / "data", own_tables(tmp_path, columns=columns))


@pytest.mark.parametrize(
    ("key", "value", "table"), [("user_text", ["story"], "users"), ("image", "photo", "items"), ("avoid", "a", "users")]
)
def test_columns_of_a_table_that_is_not_there_are_refused(tmp_path: Path, key: str, value: Any, table: str) -> None:
    read = {"columns": {"user": "who", "item": "what", key: value}}
    config = own(tmp_path, write_events(tmp_path / "e.csv"), read=read)
    with pytest.raises(ConfigError, match=f"data.read.columns.{key}: has no effect without data.read.{table}"):
        prepared(tmp_path / "out", {"read": config.read})


def test_keys_without_effect_beside_films_are_refused(tmp_path: Path) -> None:
    sections = own_tables(tmp_path)
    sections["read"] = sections["read"] | {"metadata": ["films.csv"]}
    with pytest.raises(ConfigError, match=r"data.read.columns.item_text: has no effect beside data.read.item_ids and"):
        prepared(tmp_path / "out", sections)
    config = own(tmp_path, write_events(tmp_path / "e.csv"), read={"item_ids": "ids.txt"})
    with pytest.raises(ConfigError, match=r"data.read.item_ids, data.read.metadata: have no effect without"):
        prepared(tmp_path / "out", {"read": config.read})


def test_a_column_that_would_be_taken_for_another_is_refused(tmp_path: Path) -> None:
    sections = own_tables(tmp_path, columns={"title": "words", "item_attributes": ["title"]})
    items = pd.read_parquet(tmp_path / "items.parquet").assign(title="T")
    items.to_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match="column 'title' is read beside 'words', which becomes 'title' of items"):
        prepared(tmp_path / "data", sections)


def test_unseen_users_need_a_table(tmp_path: Path) -> None:
    config = own(tmp_path, write_events(tmp_path / "e.csv"))
    with pytest.raises(ConfigError, match=r"data.filter.unseen: the source has no table of 'user'"):
        prepared(tmp_path / "out", {"read": config.read, "filter": {"unseen": ["user"]}})


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really", b"\x00" * 100])
def test_a_broken_parquet_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken.parquet: cannot be read"):
        prepared(tmp_path / "out", {"read": own(tmp_path, path).read})
