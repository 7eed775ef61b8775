"""Raw rows of tables: values as they are written, and what is wrong with a row beside it."""

import gzip
from pathlib import Path

import pytest

from rec.data.tables import raw_rows
from rec.errors import DataError


def test_csv_keeps_text_and_tells_short_rows(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text('\ufeffuser,history\n007,"1|2"\n"a\nb"\n\n8,,9\n', encoding="utf-8")
    fault = "values, expected 2: user, history"
    assert list(raw_rows(str(tmp_path / "r.csv"))) == [
        ({"user": "007", "history": "1|2"}, None),
        ({"user": "a\nb"}, f"1 {fault}"),
        ({"user": "8", "history": ""}, f"3 {fault}"),
    ]


def test_json_lines_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"a": 1}\n\n[1]\n{"a"\n')
    rows = list(raw_rows(str(tmp_path / "r.jsonl")))
    assert rows[:2] == [({"a": 1}, None), ({}, "a list, expected an object")]
    assert "not JSON" in str(rows[2][1])


def test_a_table_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(raw_rows(str(tmp_path / "nowhere.csv")))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="is empty, expected a first line"):
        list(raw_rows(str(tmp_path / "empty.csv")))
    (tmp_path / "bad.parquet").write_bytes(gzip.compress(b"no table"))
    with pytest.raises(DataError, match="cannot be read"):
        list(raw_rows(str(tmp_path / "bad.parquet")))
