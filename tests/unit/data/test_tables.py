"""Foreign tables are read as they were written: ids, numbers and texts of every type, in pieces or whole."""

import datetime
import gzip
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.data.tables import (
    ForeignTable,
    Kind,
    columns,
    pieces,
    raw_rows,
    read,
    read_whole,
    require,
    typed,
)
from rec.errors import DataError
from tests.support.foreign import INTEGERS, NOON, NOON_S, VALUE, a_column, a_table, slow_to_draw, values

UTC = datetime.UTC
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
        (pa.array([1.0, 1.5]), "row 2, column 'x': found 1.5, expected text or a whole number"),
        (pa.array([2.0**53]), "row 1, column 'x': found 9007199254740992.0"),
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
    with pytest.raises(DataError, match="row 60001, column 'x': found 'five', expected a number"):
        values(table, Kind.NUMBER)


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


def test_no_path_is_refused() -> None:
    with pytest.raises(DataError, match="no path given"):
        columns(ForeignTable(()))


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
    with pytest.raises(DataError, match=r"row 2, column 'x': found '1.5', expected a whole number"):
        values(a_table(text, "x,y\n1,a\n1.5,a\n", types={"x": "integer"}), Kind.ANY)
    with pytest.raises(DataError, match=r"t.csv: column 'x': row 2: found 'soon', expected a time"):
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
    fault = "expected 2: user, history"
    assert list(raw_rows(str(tmp_path / "r.csv"))) == [
        ({"user": "007", "history": "1|2"}, None),
        ({"user": "a\nb"}, f"1 value, {fault}"),
        ({"user": "8", "history": ""}, f"3 values, {fault}"),
    ]


def test_json_lines_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"a": 1}\n\n[1]\n{"a"\n')
    rows = list(raw_rows(str(tmp_path / "r.jsonl")))
    assert rows[:2] == [({"a": 1}, None), ({}, "a list, expected an object")]
    assert "not JSON" in str(rows[2][1])


def test_requests_that_are_not_utf8_are_told(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "r.csv").write_bytes("user\nRen\u00e9\n".encode("cp1252"))
    assert list(raw_rows(str(tmp_path / "r.csv"), said.append)) == [({"user": "Ren\u00e9"}, None)]
    assert said == [f"{tmp_path}/r.csv: not UTF-8 everywhere: values that are not are read as cp1252"]
    (tmp_path / "r.jsonl").write_bytes('{"a": "\u00e9"}\n{"a": "b"}\n'.encode("cp1252"))
    assert list(raw_rows(str(tmp_path / "r.jsonl"))) == [({}, "not UTF-8"), ({"a": "b"}, None)]


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


@pytest.mark.parametrize(
    ("written", "kind", "found"),
    [
        ("4,5", Kind.NUMBER, [4.5]),
        ("-1,25e3\n,5\n7", Kind.NUMBER, [-1250.0, 0.5, 7.0]),
        ("4,5\nNA\n6,0", Kind.ANY, [4.5, None, 6.0]),
        ("4,5\nsome", Kind.ANY, ["4,5", "some"]),
        ("4\n5", Kind.ANY, [4, 5]),
        ("0,5\n1,5", Kind.TIME, [5, 15]),
    ],
)
def test_decimal_commas_are_read_where_they_are_declared(
    tmp_path: Path, written: str, kind: Kind, found: list[Any]
) -> None:
    assert (
        values(a_table(tmp_path / "t.csv", f"y;x\n;{written.replace(chr(10), chr(10) + ';')}\n", decimal=","), kind)
        == found
    )


@pytest.mark.parametrize("kind", [Kind.NUMBER, Kind.ANY, Kind.TIME])
def test_a_point_beside_decimal_commas_is_refused(tmp_path: Path, kind: Kind) -> None:
    table = a_table(tmp_path / "t.csv", "y;x\n;1,5\n;1.234\n", decimal=",")
    with pytest.raises(
        DataError, match=r"row 2.* found '1.234', expected a number with a decimal comma and without a poi"
    ):
        values(table, kind)


@pytest.mark.parametrize(
    ("form", "written", "iso"),
    [
        ("%d.%m.%Y %H:%M", "10.12.2022 09:38", "2022-12-10T09:38"),
        ("%m/%d/%y", "12/10/22", "2022-12-10"),
        ("%Y%m%d %H%M%S.%f", "20221210 093800.123456789", "2022-12-10T09:38:00.123456789"),
        ("%d %b %Y %H:%M %z", "10 Dec 2022 09:38 +0200", "2022-12-10T07:38Z"),
    ],
)
def test_times_are_read_in_the_form_that_is_declared(tmp_path: Path, form: str, written: str, iso: str) -> None:
    body = f"x,y\n{written},\n,\n"
    assert values(a_table(tmp_path / "t.csv", body, time_format=form), Kind.TIME) == [pd.Timestamp(iso).value, None]
    whole = values(a_table(tmp_path / "t.csv", body, time_format=form, types={"x": "time"}), Kind.ANY)
    assert pd.Timestamp(whole[0]) == pd.Timestamp(iso)
