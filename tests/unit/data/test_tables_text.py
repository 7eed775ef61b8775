"""Text files of every layout are read as they were written, wherever blocks end."""

import csv
import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.data.tables import (
    ForeignTable,
    Kind,
    TableFormat,
    columns,
    files,
    pieces,
    read,
    read_whole,
)
from rec.data.tables import text as text_files
from rec.data.tables.files import locate
from rec.data.tables.layout import complete, layout
from rec.errors import DataError
from tests.support.foreign import PACKED, VALUE, a_table, slow_to_draw, values, written


@slow_to_draw
@given(data=st.data())
def test_text_files_give_what_was_written(tmp_path: Path, data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 3))
    rows = data.draw(st.lists(st.lists(VALUE, min_size=width, max_size=width), min_size=1, max_size=6))
    delimiter = data.draw(st.sampled_from([",", "\t", ";", "|", "::", "¦", " "]))
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]))
    packed = data.draw(st.sampled_from(sorted(PACKED)))
    names = [f"n{i}" for i in range(width)]
    body = written([names, *rows], delimiter, end, data.draw(st.lists(st.booleans(), min_size=1, max_size=5)))
    path = tmp_path / f"t.csv{packed}"
    path.write_bytes(PACKED[packed](body.encode(encoding)))
    format = TableFormat(delimiter=delimiter, encoding=encoding if encoding == "utf-16-le" else "")
    location = locate(str(path))
    known = complete(layout(location, format), location)
    size = data.draw(st.sampled_from([1, 7, 64, 1 << 22]))
    found: list[list[str | None]] = []
    for first, arrays in text_files.batches(location, known, names, size=size):
        assert first == len(found)
        found += [list(row) for row in zip(*(arrays[name].to_pylist() for name in names), strict=True)]
    assert found == [[value or None for value in row] for row in rows]
    assert [[value or None for value in row] for row in text_files.raw(location, known)] == found
    apart = []
    for stretch in text_files.stretches(location, known, data.draw(st.integers(1, 6)), size):
        for first, arrays in text_files.batches(location, known, names, stretch, data.draw(st.integers(1, 99))):
            assert first == len(apart)
            apart += arrays[names[0]].to_pylist()
    assert apart == [row[0] for row in found]


@slow_to_draw
@given(rows=st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=8), encoding=st.sampled_from(["cp1252", "latin-1"]))
def test_declared_encodings_give_what_was_written(tmp_path: Path, rows: list[Any], encoding: str) -> None:
    rows = [tuple(v.encode(encoding, "ignore").decode(encoding) for v in row) for row in rows]
    body = written([("a", "x"), *rows], ";", "\n", [False]).encode(encoding)
    table = a_table(tmp_path / "t.csv", body, delimiter=";", encoding=encoding)
    assert values(table, Kind.ID) == [row[1] or None for row in rows]


@slow_to_draw
@given(data=st.data())
def test_quotes_inside_bare_values_mean_nothing_wherever_blocks_end(tmp_path: Path, data: st.DataObject) -> None:
    piece = st.sampled_from(["a", '"', "\n", ",", "b"])
    bare = st.lists(piece, max_size=3).map(lambda p: "a" + "".join(c for c in p if c not in "\n,"))
    quoted = st.lists(piece, max_size=4).map(lambda p: '"' + "".join(p).replace('"', '""') + '"')
    rows = data.draw(st.lists(st.tuples(bare | quoted, bare | quoted), min_size=1, max_size=12))
    body = "u,x\n" + "".join(f"{a},{b}\n" for a, b in rows)
    path = tmp_path / "t.csv"
    path.write_text(body, newline="")
    location = locate(str(path))
    known = complete(layout(location, TableFormat(delimiter=",")), location)
    batches = text_files.batches(location, known, ["x"], size=data.draw(st.integers(1, 40)))
    found = [value for _, arrays in batches for value in arrays["x"].to_pylist()]
    assert found == [row[1] or None for row in csv.reader(io.StringIO(body, newline=""))][1:]


# Row 7: quoted newlines.
def test_quoted_newlines_beyond_a_block_stay_in_their_value(text: Path) -> None:
    story = 'one\r\ntwo\n, "three"\r\n' * 40
    table = a_table(text, "id,x\n" + "".join(f'{i},"{story.replace(chr(34), chr(34) * 2)}"\n' for i in range(9000)))
    found = read_whole(table, {"id": ("id", Kind.ID), "x": ("x", Kind.TEXT)})
    assert found["id"].to_pylist() == [str(i) for i in range(9000)]
    assert found["x"].unique().to_pylist() == [story]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("inside", ["\n", "\r\n", "\r", "\n\n", '"\n"'])
def test_every_line_end_inside_quotes_stays(text: Path, end: str, inside: str) -> None:
    value = f"a{inside}b"
    body = written([("y", "x"), ("1", value), ("2", inside)], ",", end, [False])
    assert values(a_table(text, body), Kind.TEXT) == [value, inside]


def test_a_row_longer_than_a_block_is_read(text: Path) -> None:
    long = "word\n" * (1 << 20)
    assert values(a_table(text, f'y,x\n1,"{long}"\n2,b\n'), Kind.TEXT) == [long, "b"]


def test_cp1252_is_read_where_a_value_is_not_utf8(text: Path) -> None:
    table = a_table(text, b"x,y\nM\xfcller \x85 \x81,\xc3\xa9\n")
    assert values(table, Kind.TEXT) == ["Müller … \x81"]
    assert values(table, Kind.TEXT, "y") == ["é"]
    assert pieces(table)[0].note == "not UTF-8 everywhere: values that are not are read as cp1252"


def test_a_value_that_is_not_in_the_declared_encoding_is_refused_by_row(text: Path) -> None:
    table = a_table(text, b"x,y\na,1\nM\xfcller,2\n", encoding="utf-8")
    assert values(table, Kind.ID, "y") == ["1", "2"]
    with pytest.raises(DataError, match=r"row 2, column 'x': found .*expected text in utf-8"):
        values(table, Kind.ID)


# Row 11: exotic line ends.
@pytest.mark.parametrize("exotic", ["\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\xa0"])
@pytest.mark.parametrize("delimiter", [",", "::"])
def test_characters_that_end_lines_elsewhere_stay(text: Path, exotic: str, delimiter: str) -> None:
    value = f"The{exotic}End"
    table = a_table(text, f"y,x\n1,{value}\n2,b\n".replace(",", delimiter))
    assert values(table, Kind.TEXT) == [value, "b"]


def test_a_lone_carriage_return_stays_where_rows_end_in_line_feeds(text: Path) -> None:
    assert values(a_table(text, "y,x\n1,a\rb\n2,c\r\n"), Kind.TEXT) == ["a\rb", "c"]


# Row 21: clashing names.
@pytest.mark.parametrize("head", ["user,item,item", "item\titem", '"a b","a b"'])
def test_a_name_that_stands_twice_is_refused(text: Path, head: str) -> None:
    table = a_table(text, f"{head}\n")
    with pytest.raises(DataError, match=r"header: column '(item|a b)' stands twice, expected once"):
        columns(table)
    with pytest.raises(DataError, match="stands twice"):
        pieces(table)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("", "is empty, expected a first line"),
        ("\n\r\n", "is empty, expected a first line"),
        ("a,x\n1\n", "row 1: found 1 values .*expected 2: a, x"),
        ("a,x\n1,2\n\udcff,4,5\n", r"row 2: found 3 values"),
        ("a,x\n1,2\n\n3,4,5\n", "row 2: found 3 values .'3,4,5'.*expected 2: a, x"),
        ('a,x\n1,2\n3,"4\n5,6\n', "found .*4.*at its end, expected a quote that closes"),
    ],
)
def test_files_of_another_form_are_refused(text: Path, body: str, shown: str) -> None:
    with pytest.raises(DataError, match=shown) as error:
        values(a_table(text, body), Kind.ID)
    assert str(error.value).startswith(str(text))


def test_a_row_that_is_too_short_is_named_over_blocks(text: Path) -> None:
    table = a_table(text, "a,x\n" + f"1,{'u' * 96}\n" * 50_000 + "7\n")
    with pytest.raises(DataError, match="row 50001: found 1 values"):
        pieces(table)


def test_a_file_without_header_has_declared_names(text: Path) -> None:
    table = a_table(text, "1::10::5\n2::20::4\n", header=("user", "x", "rating"))
    assert values(table, Kind.ID) == ["10", "20"]
    with pytest.raises(DataError, match=r"row 1: found 3 values .*expected 2: user, x"):
        values(a_table(text, "1,2,3\n", header=("user", "x")), Kind.ID)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_are_told_by_how_a_file_starts(text: Path, encoding: str) -> None:
    assert values(a_table(text, "x,y\né😀,1\n".encode(encoding)), Kind.ID) == ["é😀"]


def test_a_header_may_start_as_parquet_does(text: Path) -> None:
    assert values(a_table(text, "PAR1,x\n1,2\n"), Kind.ID) == ["2"]


def test_numbers_between_spaces_are_told(text: Path) -> None:
    assert values(a_table(text, "1 10\n1 20\n", header=("user", "x")), Kind.ID) == ["10", "20"]
    assert values(a_table(text, "title\nThe End\nAt Last\n"), Kind.TEXT, "title") == ["The End", "At Last"]


def test_commas_in_numbers_do_not_hide_the_semicolon(text: Path) -> None:
    assert values(a_table(text, "user;x\n1;4,5\n2;3,0\n"), Kind.TEXT) == ["4,5", "3,0"]


@pytest.mark.parametrize("packed", [*PACKED, ".zip"])
def test_packed_files_are_read(tmp_path: Path, packed: str) -> None:
    path = tmp_path / f"t.csv{packed}"
    if packed == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inner/t.csv", "x,y\n007,\n")
            archive.writestr("README", "no table")
    else:
        path.write_bytes(PACKED[packed](b"x,y\n007,\n"))
    assert values(ForeignTable((str(path),)), Kind.ID) == ["007"]
    assert values(ForeignTable((str(tmp_path),)), Kind.ID) == ["007"]


def test_a_member_of_an_archive_is_named_as_in_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/1.csv", "x,y\n1,\n")
        archive.writestr("in/2.csv", "x,y\n2,\n")
    whole = str(tmp_path / "a.zip")
    assert values(ForeignTable((f"{whole}/in/2.csv",)), Kind.ID) == ["2"]
    assert values(ForeignTable((f"{whole}/in",)), Kind.ID) == ["1", "2"]
    with pytest.raises(DataError, match=r"archive of 2 files \(in/1.csv, in/2.csv\), expected one"):
        values(ForeignTable((whole,)), Kind.ID)
    with pytest.raises(DataError, match=r"the archive holds no such file; there are in/1.csv"):
        files(f"{whole}/in/3.csv")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    for name, data in (
        ("a.csv.gz", gzip.compress(b"x,y\n1,2\n" * 999)[:-20]),
        ("b.parquet", b"no table"),
        ("c.zip", b"PK\3\4"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{name}: cannot be read"):
            values(ForeignTable((str(tmp_path / name),)), Kind.ID)


def test_files_of_folders_are_sorted_and_others_left_out(tmp_path: Path) -> None:
    (tmp_path / "b" / "c.parquet").mkdir(parents=True)
    for name in ("z.csv", "b/a.CSV", "b/c.parquet/part-0.parquet", "README.txt", "._z.csv", "y.csv.crc"):
        (tmp_path / name).write_text("x\n")
    names = ["b/a.CSV", "b/c.parquet/part-0.parquet", "z.csv"]
    assert files(str(tmp_path)) == [f"{tmp_path}/{name}" for name in names]
    assert files(f"file://{tmp_path}") == [f"file://{tmp_path}/{name}" for name in names]
    with pytest.raises(DataError, match=r"no file that ends in \.dat"):
        files(str(tmp_path), (".dat",))


def test_names_with_spaces_are_found_by_address(tmp_path: Path) -> None:
    (tmp_path / "a b#?%20é.csv").write_text("x,y\n1,\n")
    assert values(ForeignTable((f"file://{tmp_path}",)), Kind.ID) == ["1"]


def test_a_text_file_is_read_in_parts_that_know_their_rows(text: Path) -> None:
    table = a_table(text, "\ufeffx,y\n" + "".join(f'{n},"{n}\n{n}"\n' for n in range(100)))
    parts = pieces(table, 30)
    assert [(p.first, p.rows) for p in parts] == [(0, 33), (33, 33), (66, 34)]
    found = [t for p in parts for t in read(p, {"x": ("x", Kind.ID), "y": ("y", Kind.ID)}, rows_at_once=7)]
    assert [v for t in found for v in t["y"].to_pylist()] == [f"{n}\n{n}" for n in range(100)]
    assert [v for t in found for v in t["row"].to_pylist()] == list(range(100))


def test_a_part_in_the_middle_of_a_file_does_not_lose_a_mark_that_stands_there(text: Path) -> None:
    table = a_table(text, "x,y\n" + f"1,{'u' * 96}\n" * 60_000 + "\ufeff2,u\n")
    parts = pieces(table, 20_000)
    assert len(parts) > 1
    assert values(table, Kind.ID)[-1] == "\ufeff2"


def test_no_byte_of_numbers_is_lost_over_many_blocks(text: Path) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 10**12, 200_000)
    body = "x::y::z\n" + "".join(f"{i}::{i % 7}::some more text\n" for i in ids)
    assert values(a_table(text, body), Kind.ID) == [str(i) for i in ids]


@pytest.mark.parametrize(
    ("name", "text"), [("drugs.json", '[{"name": "a", "smiles": "C"'), ("d.json", ' {"a": [1]}'), ("x.jsonl", "{}\n")]
)
def test_json_is_told_as_json_and_not_as_a_table_without_columns(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"{name}: found JSON, expected a table with a line of column names"):
        columns(ForeignTable((str(tmp_path / name),)))
