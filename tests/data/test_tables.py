"""Foreign tables are read as they were written, whatever wrote them."""

import bz2
import csv
import datetime
import gzip
import io
import lzma
import pickle
import zipfile
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rec.data.tables import (
    ForeignTable,
    Kind,
    TableFormat,
    columns,
    files,
    pieces,
    raw_rows,
    read,
    read_whole,
    require,
    time_form,
    typed,
)
from rec.data.tables import text as text_files
from rec.data.tables.files import locate
from rec.data.tables.layout import complete, layout
from rec.errors import DataError

UTC = datetime.UTC
DAY_NS = 24 * 3600 * 10**9
NO_SURROGATES = st.characters(exclude_categories=["Cs"])
SPECIAL = st.sampled_from(
    ["\n", "\r", "\r\n", '"', '""', ",", ";", "|", "\t", "::", ":", "\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c", 
     "\x1d", "\x1e", "\x1f", "\x00", "\x01", "NA", "null", "007", "1e5", " ", "é", "😀", "a", "1"]
)  # fmt: skip
VALUE = st.lists(st.one_of(SPECIAL, st.text(NO_SURROGATES, max_size=2)), max_size=4).map("".join)
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
slow_to_draw = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def written(rows: Sequence[Sequence[str]], delimiter: str, end: str, quote: Sequence[bool]) -> str:
    """Return rows as text: values are in quotes where they must be, and where `quote` says so."""
    lines, number = [], 0
    for row in rows:
        cells = []
        for value in row:
            number += 1
            alone = value == "" and len(row) == 1
            bare = alone or quote[number % len(quote)] or any(c in value for c in f'"\r\n{delimiter}')
            cells.append('"' + value.replace('"', '""') + '"' if bare else value)
        lines.append(delimiter.join(cells) + end)
    return "".join(lines)


def a_table(path: Path, body: str | bytes, **format: Any) -> ForeignTable:
    path.write_bytes(body if isinstance(body, bytes) else body.encode("utf-8", "surrogateescape"))
    return ForeignTable((str(path),), TableFormat(**format))


def a_column(path: Path, values: Any) -> ForeignTable:
    """A Parquet table with one column, `x`."""
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    pq.write_table(pa.table({"x": array}), path)
    return ForeignTable((str(path),))


def values(table: ForeignTable, kind: Kind, name: str = "x") -> list[Any]:
    return read_whole(table, {"ours": (name, kind)})["ours"].to_pylist()


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    return tmp_path / "t.parquet"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return tmp_path / "t.csv"


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


INTEGERS = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
ID_COLUMNS = {
    "string": (st.one_of(st.none(), VALUE), pa.string()),
    "large_string": (st.one_of(st.none(), VALUE), pa.large_string()),
    "int64": (INTEGERS, pa.int64()),
    "uint64": (st.one_of(st.none(), st.integers(0, 2**64 - 1)), pa.uint64()),
    "int8": (st.one_of(st.none(), st.integers(-128, 127)), pa.int8()),
    "double": (st.one_of(st.none(), st.integers(-(2**53) + 1, 2**53 - 1)), pa.float64()),
    "decimal": (st.one_of(st.none(), st.integers(-(10**30), 10**30).map(Decimal)), pa.decimal128(38, 0)),
}


@slow_to_draw
@given(data=st.data())
def test_parquet_ids_are_what_was_written_as_text(tmp_path: Path, data: st.DataObject) -> None:
    one, kind = ID_COLUMNS[data.draw(st.sampled_from(sorted(ID_COLUMNS)))]
    given_values = data.draw(st.lists(one, min_size=1, max_size=9))
    array = pa.array(given_values, pa.int64()).cast(kind) if kind == pa.float64() else pa.array(given_values, kind)
    if data.draw(st.booleans()) and not pa.types.is_decimal(kind):
        array = array.dictionary_encode()
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": array}), path, row_group_size=data.draw(st.integers(1, 9)))
    table = ForeignTable((str(path),))
    expected = [None if v is None or v == "" else str(v) for v in given_values]
    parts = pieces(table, data.draw(st.integers(1, 9)))
    tables = [t for p in parts for t in read(pickle.loads(pickle.dumps(p)), {"i": ("x", Kind.ID)}, rows_at_once=2)]
    assert [v for t in tables for v in t["i"].to_pylist()] == expected
    assert [v for t in tables for v in t["row"].to_pylist()] == list(range(len(expected)))
    assert sum(p.rows for p in parts) == len(expected)


@slow_to_draw
@given(times=st.lists(INTEGERS, min_size=1, max_size=9), as_text=st.booleans())
def test_integer_times_keep_order_and_distinctness(tmp_path: Path, times: list[int | None], as_text: bool) -> None:
    found = values(a_column(tmp_path / "t.parquet", pa.array(times, pa.int64())), Kind.TIME)
    if as_text:
        body = "x,y\n" + "".join(f"{'' if t is None else t},\n" for t in times)
        assert values(a_table(tmp_path / "t.csv", body), Kind.TIME) == found
    assert [t is None for t in found] == [t is None for t in times]
    pairs = [(a, b) for a, b in zip(times, found, strict=True) if a is not None]
    assert all((a < c) == (b < d) and (a == c) == (b == d) for a, b in pairs for c, d in pairs)


@slow_to_draw
@given(times=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
def test_times_that_are_floats_keep_order(tmp_path: Path, times: list[float]) -> None:
    found = values(a_column(tmp_path / "t.parquet", times), Kind.TIME)
    pairs = list(zip(times, found, strict=True))
    assert all(b <= d for a, b in pairs for c, d in pairs if a <= c)


# Row 4 of the faults: ids that look like numbers.
@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", "::"])
def test_ids_of_text_files_stay_as_written(text: Path, delimiter: str) -> None:
    ids = [
        "00001",
        "01",
        "1",
        "12345678901234567890",
        "1e5",
        "A1",
        "NA",
        "null",
        "None",
        "nan",
        " a/b",
        "😀",
        "-0",
        "1.0",
    ]
    table = a_table(text, "x;y\n".replace(";", delimiter) + "".join(f"{i}{delimiter}1\n" for i in ids))
    assert values(table, Kind.ID) == ids


def test_ids_of_text_columns_in_parquet_stay_as_written(parquet: Path) -> None:
    assert values(a_column(parquet, ["007", "7", "1e5", "NA"]), Kind.ID) == ["007", "7", "1e5", "NA"]


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (pa.array([1.0, 1.5]), "row 1, column 'x': found 1.5, expected text or a whole number"),
        (pa.array([2.0**53]), "row 0, column 'x': found 9007199254740992.0"),
        (pa.array([True]), "column 'x': found bool, expected text or whole numbers"),
        (pa.array([[1]]), "found list<element: int64>, expected text or whole numbers"),
        (pa.array([Decimal("1.5")]), "found '1.5', expected text or a whole number"),
        (pa.array([datetime.date(2020, 1, 1)]), "found date32"),
        (pa.array([b"\xff"]), "found b'\\\\xff', expected text in utf-8"),
    ],
)
def test_what_is_no_id_is_refused_by_file_row_and_column(parquet: Path, found: pa.Array, shown: str) -> None:
    with pytest.raises(DataError, match=shown) as error:
        values(a_column(parquet, found), Kind.ID)
    assert str(error.value).startswith(str(parquet))


# Row 5: a null makes integers floats.
@pytest.mark.parametrize(
    "written_by",
    [
        lambda ids: pa.array(ids, pa.int64()),
        lambda ids: pa.Array.from_pandas(pd.Series(ids, dtype="float64")),
        lambda ids: pa.Array.from_pandas(pd.Series(ids, dtype="Int64")),
        lambda ids: pa.array(ids, pa.int64()).dictionary_encode(),
        lambda ids: pa.array([None if i is None else Decimal(i) for i in ids], pa.decimal128(20, 0)),
    ],
)
def test_integer_ids_beside_a_missing_one_stay_whole(parquet: Path, written_by: Any) -> None:
    assert values(a_column(parquet, written_by([0, None, 4503599627370497])), Kind.ID) == [
        "0",
        None,
        "4503599627370497",
    ]


def test_integer_ids_above_2_to_53_beside_a_missing_one_stay_apart(parquet: Path) -> None:
    ids = [2**53, 2**53 + 1, None, -(2**63)]
    assert values(a_column(parquet, pa.array(ids, pa.int64())), Kind.ID) == [None if i is None else str(i) for i in ids]


def test_an_empty_cell_is_the_only_missing_id(text: Path) -> None:
    assert values(a_table(text, 'x,y\n0,1\n,1\n"",1\n" ",1\n'), Kind.ID) == ["0", None, None, " "]


# Row 6: types guessed from the first block.
def test_a_number_late_in_a_long_file_may_have_a_fraction(text: Path) -> None:
    rows = 400_000
    table = a_table(text, "x,user\n" + f"5,{'u' * 8}\n" * rows + "4.5,u\n")
    found = read_whole(table, {"rating": ("x", Kind.NUMBER), "any": ("x", Kind.ANY)})
    assert found["rating"].to_numpy().sum() == 5 * rows + 4.5
    assert found["any"].type == pa.float64()


def test_a_column_that_is_empty_at_first_and_nobody_reads_does_not_matter(text: Path) -> None:
    rows = 300_000
    table = a_table(text, "x,note\n" + "1,             \n" * rows + '2,"some ""text"""\n')
    assert set(values(table, Kind.ID)) == {"1", "2"}


def test_files_of_a_table_may_differ_in_types_and_order(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1, 2], "item": ["a", "b"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"item": [7.0, None], "user": ["x", "007"]}), tmp_path / "2.parquet")
    (tmp_path / "3.csv").write_text("item;user\n01;3\n")
    table = ForeignTable((str(tmp_path),))
    found = read_whole(table, {"u": ("user", Kind.ID), "i": ("item", Kind.ID), "any": ("user", Kind.ANY)})
    assert found["u"].to_pylist() == ["1", "2", "x", "007", "3"]
    assert found["i"].to_pylist() == ["a", "b", "7", None, "01"]
    assert found["row"].to_pylist() == [0, 1, 0, 1, 0]
    assert found["any"].to_pylist() == ["1", "2", "x", "007", "3"]


def test_integers_and_floats_of_two_files_are_floats(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"x": [0.5]}), tmp_path / "2.parquet")
    assert values(ForeignTable((str(tmp_path),)), Kind.ANY) == [1.0, 2.0, 0.5]


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


# Row 8: integer times.
def test_times_100_ns_apart_keep_their_order_whatever_the_files(tmp_path: Path) -> None:
    times = [1_700_000_000_000_000_000 + 100 * n for n in range(50)][::-1]
    assert values(a_column(tmp_path / "t.parquet", times), Kind.TIME) == times
    body = "x,y\n" + "".join(f"{t},0\n" for t in times)
    assert values(a_table(tmp_path / "t.csv", body), Kind.TIME) == times


NOON = datetime.datetime(2023, 11, 14, 22, 13, 20)
NOON_S = 1_700_000_000


@pytest.mark.parametrize(
    "column",
    [
        pa.array([NOON_S], pa.int64()),
        pa.array([NOON_S * 10**3], pa.int64()),
        pa.array([NOON_S * 10**6], pa.int64()),
        pa.array([NOON_S * 10**9], pa.int64()),
        pa.array([NOON_S], pa.uint32()),
        pa.array([float(NOON_S)]),
        pa.array([float(NOON_S * 10**3)]),
        pa.array([str(NOON_S)]),
        pa.array([Decimal(NOON_S)]),
        pa.array([NOON], pa.timestamp("s")),
        pa.array([NOON], pa.timestamp("ms")),
        pa.array([NOON], pa.timestamp("us", "UTC")),
        pa.array([NOON_S * 10**9], pa.timestamp("ns", "Asia/Tokyo")),
        pa.array(["2023-11-14T22:13:20"]),
        pa.array(["2023-11-14 22:13:20.000"]),
        pa.array(["2023-11-14T22:13:20Z"]),
        pa.array(["2023-11-15T00:13:20+02:00"]),
        pa.array(["2023/11/14 22:13:20 UTC"]),
        pa.array(["2023-11-14T22:13:20"]).dictionary_encode(),
    ],
    ids=str,
)
def test_one_moment_is_one_number_in_every_type(parquet: Path, column: pa.Array) -> None:
    assert values(a_column(parquet, column), Kind.TIME) == [NOON_S * 10**9]


def test_a_date_is_its_first_nanosecond(parquet: Path) -> None:
    for kind in (pa.date32(), pa.date64()):
        table = a_column(parquet, pa.array([datetime.date(1970, 1, 3), None], kind))
        assert values(table, Kind.TIME) == [2 * DAY_NS, None]


def test_ranks_stay_as_they_are(text: Path) -> None:
    table = a_table(text, "x,y\n3,a\n1,a\n2,a\n")
    assert values(table, Kind.TIME) == [3, 1, 2]
    assert time_form(table, "x").unit == ""


def test_a_declared_unit_counts_more_than_the_size(text: Path) -> None:
    table = a_table(text, "x,y\n3,a\n1,a\n", time_unit="ms")
    assert values(table, Kind.TIME) == [3_000_000, 1_000_000]


def test_fractions_of_seconds_in_text_are_exact(text: Path) -> None:
    table = a_table(text, "x,y\n1700000000.123456789,a\n1700000000.123456788,a\n1700000000,a\n")
    assert values(table, Kind.TIME) == [1700000000123456789, 1700000000123456788, 1700000000000000000]


def test_dates_too_far_for_nanoseconds_are_microseconds(text: Path) -> None:
    table = a_table(text, "x,y\n9999-12-31,a\n1970-01-02,a\n,a\n")
    assert values(table, Kind.TIME) == [253402214400 * 10**6, DAY_NS // 1000, None]
    assert time_form(table, "x").unit == "us"


def test_one_form_holds_for_all_files(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("x,y\n5,a\n")
    pq.write_table(pa.table({"x": [float(NOON_S), None]}), tmp_path / "2.parquet")
    assert values(ForeignTable((str(tmp_path),)), Kind.TIME) == [5 * 10**9, NOON_S * 10**9, None]


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("2020-01-01\n5\n", "row 1, column 'x': found '5', expected a date without time zone as in row 0"),
        ("5\n2020-01-01\n", "row 1, column 'x': found '2020-01-01', expected a number as in row 0"),
        ("2020-01-01\n2020-01-01T00:00Z\n", "row 1, column 'x': found '2020-01-01T00:00Z'"),
        ("2020-01-01\nyesterday\n", "row 1, column 'x': found 'yesterday', expected a time"),
        ("2020-02-30\n", "row 0, column 'x': found '2020-02-30', expected a date that exists"),
        ("1\n99999999999999999999\n", "row 1, column 'x': found '99999999999999999999', expected a number of 64 bits"),
    ],
)
def test_what_is_no_time_is_refused_by_row(text: Path, body: str, shown: str) -> None:
    with pytest.raises(DataError, match=shown):
        values(a_table(text, "x,y\n" + body.replace("\n", ",\n")), Kind.TIME)


def test_times_are_not_read_without_a_form(text: Path) -> None:
    (piece,) = pieces(a_table(text, "x,y\n1,a\n"))
    with pytest.raises(ValueError, match="no form of t"):
        next(read(piece, {"t": ("x", Kind.TIME)}))


# Row 9: numbers, booleans and categories with nulls, names that others use, encodings.
def test_columns_may_be_called_key_id_and_row(parquet: Path) -> None:
    pq.write_table(pa.table({"key": [1], "id": ["a"], "row": [5]}), parquet)
    wanted = {"k": ("key", Kind.ID), "i": ("id", Kind.ID), "r": ("row", Kind.NUMBER)}
    assert read_whole(ForeignTable((str(parquet),)), wanted).to_pylist() == [{"k": "1", "i": "a", "r": 5.0, "row": 0}]


@pytest.mark.parametrize(
    ("column", "as_text", "as_number"),
    [
        (pa.array([1, None, 3]), ["1", None, "3"], [1.0, None, 3.0]),
        (pa.array([0.5, None, 3.0]), ["0.5", None, "3"], [0.5, None, 3.0]),
        (pa.array([True, None, False]), ["true", None, "false"], [1.0, None, 0.0]),
        (pa.array(["1", None, "1"]).dictionary_encode(), ["1", None, "1"], [1.0, None, 1.0]),
        (pa.array([Decimal("1.50"), None, Decimal(2)]), ["1.50", None, "2.00"], [1.5, None, 2.0]),
        (pa.array([float("inf"), float("nan"), None]), ["inf", None, None], [float("inf"), None, None]),
        (pa.array([" 1 ", "NA", "1e3"]), [" 1 ", "NA", "1e3"], [1.0, None, 1000.0]),
        (pa.array([b"1", None, b"2"]), ["1", None, "2"], [1.0, None, 2.0]),
        (pa.nulls(2), [None, None], [None, None]),
    ],
    ids=str,
)
def test_every_type_is_text_and_number(parquet: Path, column: pa.Array, as_text: Any, as_number: Any) -> None:
    table = a_column(parquet, column)
    assert values(table, Kind.TEXT) == as_text
    assert values(table, Kind.NUMBER) == as_number


def test_lists_are_text_and_structs_are_refused_by_name(parquet: Path) -> None:
    assert values(a_column(parquet, [["a", "b"], [], None, ["c"]]), Kind.TEXT) == ["a, b", None, None, "c"]
    for kind in (Kind.TEXT, Kind.NUMBER, Kind.ID, Kind.TIME):
        with pytest.raises(DataError, match="column 'x': found struct<a: int64>"):
            values(a_column(parquet, [{"a": 1}]), kind)


def test_what_is_no_number_is_refused_by_row_over_blocks(text: Path) -> None:
    table = a_table(text, "x,y\n" + f"5,{'u' * 90}\n" * 60_000 + "five,u\n")
    with pytest.raises(DataError, match="row 60000, column 'x': found 'five', expected a number"):
        values(table, Kind.NUMBER)


def test_cp1252_is_read_where_a_value_is_not_utf8(text: Path) -> None:
    table = a_table(text, b"x,y\nM\xfcller \x85 \x81,\xc3\xa9\n")
    assert values(table, Kind.TEXT) == ["Müller … \x81"]
    assert values(table, Kind.TEXT, "y") == ["é"]
    assert pieces(table)[0].note == "not UTF-8 everywhere: values that are not are read as cp1252"


def test_a_value_that_is_not_in_the_declared_encoding_is_refused_by_row(text: Path) -> None:
    table = a_table(text, b"x,y\na,1\nM\xfcller,2\n", encoding="utf-8")
    assert values(table, Kind.ID, "y") == ["1", "2"]
    with pytest.raises(DataError, match=r"row 1, column 'x': found .*expected text in utf-8"):
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
    with pytest.raises(DataError, match=r"column '(item|a b)' stands twice in the header"):
        columns(table)
    with pytest.raises(DataError, match="stands twice"):
        pieces(table)


def test_a_name_that_stands_twice_in_parquet_is_refused(parquet: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["item", "item"]), parquet)
    with pytest.raises(DataError, match="column 'item' stands twice"):
        columns(ForeignTable((str(parquet),)))


def test_columns_without_a_name_do_not_clash(text: Path) -> None:
    assert values(a_table(text, ",x,\n0,a,\n"), Kind.ID) == ["a"]


# Layouts.
def test_a_missing_column_is_told_with_its_key_and_what_is_there(text: Path) -> None:
    table = a_table(text, "User,item\n1,2\n")
    with pytest.raises(
        DataError, match=r"no column 'user' \(data.columns.user\); the file has User, item; did you mean 'User'"
    ):
        require(table, {"data.columns.time": None, "data.columns.user": "user"})


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("", "is empty, expected a first line"),
        ("\n\r\n", "is empty, expected a first line"),
        ("a,x\n1\n", "row 0: found 1 values .*expected 2: a, x"),
        ("a,x\n1,2\n\udcff,4,5\n", r"row 1: found 3 values"),
        ("a,x\n1,2\n\n3,4,5\n", "row 1: found 3 values .'3,4,5'.*expected 2: a, x"),
        ('a,x\n1,2\n3,"4\n5,6\n', "found .*4.*at its end, expected a quote that closes"),
    ],
)
def test_files_of_another_form_are_refused(text: Path, body: str, shown: str) -> None:
    with pytest.raises(DataError, match=shown) as error:
        values(a_table(text, body), Kind.ID)
    assert str(error.value).startswith(str(text))


def test_a_row_that_is_too_short_is_named_over_blocks(text: Path) -> None:
    table = a_table(text, "a,x\n" + f"1,{'u' * 96}\n" * 50_000 + "7\n")
    with pytest.raises(DataError, match="row 50000: found 1 values"):
        pieces(table)


def test_a_file_without_header_has_declared_names(text: Path) -> None:
    table = a_table(text, "1::10::5\n2::20::4\n", header=("user", "x", "rating"))
    assert values(table, Kind.ID) == ["10", "20"]
    with pytest.raises(DataError, match=r"row 0: found 3 values .*expected 2: user, x"):
        values(a_table(text, "1,2,3\n", header=("user", "x")), Kind.ID)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_are_told_by_how_a_file_starts(text: Path, encoding: str) -> None:
    assert values(a_table(text, "x,y\né😀,1\n".encode(encoding)), Kind.ID) == ["é😀"]


def test_a_header_may_start_as_parquet_does(text: Path) -> None:
    assert values(a_table(text, "PAR1,x\n1,2\n"), Kind.ID) == ["2"]


def test_no_path_is_refused() -> None:
    with pytest.raises(DataError, match="no path given"):
        columns(ForeignTable(()))


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


def test_large_row_groups_are_read_in_parts(parquet: Path) -> None:
    pq.write_table(pa.table({"x": range(100), "y": range(100)}), parquet, row_group_size=40)
    parts = pieces(ForeignTable((str(parquet),)), 10)
    assert [(p.first, p.rows, p.row_groups) for p in parts[:5]] == [
        *((10 * n, 10, (0,)) for n in range(4)),
        (40, 10, (1,)),
    ]
    assert [p.index for p in parts] == list(range(10))
    assert {p.folder for p in parts} == {str(parquet.parent)}
    rows = [row for p in parts for t in read(p, {"x": ("x", Kind.ID)}, rows_at_once=3) for row in t["row"].to_pylist()]
    assert rows == list(range(100))
    assert [p.rows for p in pieces(ForeignTable((str(parquet),)), 85)] == [80, 20]


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


def test_the_stamp_changes_with_the_file(text: Path) -> None:
    before = pieces(a_table(text, "x,y\n1,\n"))[0].stamp
    assert pieces(a_table(text, "x,y\n1,2\n"))[0].stamp != before


# Types of whole columns.
@pytest.mark.parametrize(
    ("column", "kind", "expected"),
    [
        (["0", "1", None], pa.int64(), [0, 1, None]),
        (["1", "", "2.5", "1e2"], pa.float64(), [1.0, None, 2.5, 100.0]),
        (["1", "NA", "3"], pa.int64(), [1, None, 3]),
        (["007", "1"], pa.string(), ["007", "1"]),
        (["123456789012345678", "1"], pa.string(), ["123456789012345678", "1"]),
        (["99999999999999999999"], pa.string(), ["99999999999999999999"]),
        (["99999999999999999999", "1.5"], pa.string(), ["99999999999999999999", "1.5"]),
        (["true", "FALSE", None], pa.bool_(), [True, False, None]),
        ([None, ""], pa.string(), [None, None]),
        (["2024-01-31", None], pa.timestamp("us"), [datetime.datetime(2024, 1, 31), None]),
        (["2024-01-31T10:00:00+01:00"], pa.timestamp("us", "UTC"), [datetime.datetime(2024, 1, 31, 9, tzinfo=UTC)]),
        (["2024-02-30"], pa.string(), ["2024-02-30"]),
        (["1", "x"], pa.string(), ["1", "x"]),
        (["+49", "1"], pa.string(), ["+49", "1"]),
    ],
)
def test_the_type_of_a_column_comes_from_all_of_it(column: list[Any], kind: pa.DataType, expected: list[Any]) -> None:
    one_by_one = pa.chunked_array([pa.array([value], pa.string()) for value in column])
    found = typed(one_by_one)
    assert found.type == kind
    assert found.to_pylist() == expected


def test_declared_types_are_obeyed_or_refused_by_row(text: Path) -> None:
    table = a_table(text, "x,y\n1,a\n0,a\n2,a\n", types={"x": "text"})
    assert values(table, Kind.ANY) == ["1", "0", "2"]
    assert values(a_table(text, "x,y\n1,a\n0,a\n", types={"x": "boolean"}), Kind.ANY) == [True, False]
    assert values(a_table(text, f"x,y\n{NOON_S},a\n", types={"x": "time"}), Kind.ANY) == [NOON]
    with pytest.raises(DataError, match=r"row 1, column 'x': found '1.5', expected a whole number"):
        values(a_table(text, "x,y\n1,a\n1.5,a\n", types={"x": "integer"}), Kind.ANY)
    with pytest.raises(DataError, match=r"t.csv: column 'x': row 1: found 'soon', expected a time"):
        values(a_table(text, "x,y\n2024-01-31,a\nsoon,a\n", types={"x": "time"}), Kind.ANY)
    with pytest.raises(DataError, match=r"no column 'z' \(types.z\); the file has x, y"):
        require(a_table(text, "x,y\n1,a\n", types={"z": "text"}), {})


def test_columns_of_other_types_are_not_changed() -> None:
    column = pa.chunked_array([pa.array([1, None])])
    assert typed(column) is column


def test_a_table_without_rows_has_its_columns(text: Path) -> None:
    wanted = {"a": ("x", Kind.ID), "b": ("x", Kind.NUMBER), "c": ("x", Kind.TIME), "d": ("x", Kind.ANY)}
    found = read_whole(a_table(text, "x,y\n"), wanted)
    assert found.schema.types == [pa.string(), pa.float64(), pa.int64(), pa.string(), pa.int64()]
    assert len(found) == 0


# Requests: values as they are written, and what is wrong with a row beside it.
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


def test_packed_requests_and_those_of_parquet_are_read(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl.gz").write_bytes(gzip.compress('{"a": "\u2028"}\n'.encode()))
    pq.write_table(pa.table({"a": [1, None]}), tmp_path / "2.parquet")
    rows = [row for row, fault in raw_rows(str(tmp_path)) if fault is None]
    assert rows == [{"a": "\u2028"}, {"a": 1}, {"a": None}]


def test_a_table_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(raw_rows(str(tmp_path / "nowhere.csv")))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="is empty, expected a first line"):
        list(raw_rows(str(tmp_path / "empty.csv")))
    (tmp_path / "bad.parquet").write_bytes(gzip.compress(b"no table"))
    with pytest.raises(DataError, match="cannot be read"):
        list(raw_rows(str(tmp_path / "bad.parquet")))


def test_no_byte_of_numbers_is_lost_over_many_blocks(text: Path) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 10**12, 200_000)
    body = "x::y::z\n" + "".join(f"{i}::{i % 7}::some more text\n" for i in ids)
    assert values(a_table(text, body), Kind.ID) == [str(i) for i in ids]
