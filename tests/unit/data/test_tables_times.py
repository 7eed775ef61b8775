"""Times of every type keep order and distinctness to the last unit."""

import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.data.tables import (
    ForeignTable,
    Kind,
    pieces,
    read,
    time_form,
)
from rec.errors import DataError
from tests.support.foreign import INTEGERS, NOON, NOON_S, a_column, a_table, slow_to_draw, values

DAY_NS = 24 * 3600 * 10**9


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


# Row 8: integer times.
def test_times_100_ns_apart_keep_their_order_whatever_the_files(tmp_path: Path) -> None:
    times = [1_700_000_000_000_000_000 + 100 * n for n in range(50)][::-1]
    assert values(a_column(tmp_path / "t.parquet", times), Kind.TIME) == times
    body = "x,y\n" + "".join(f"{t},0\n" for t in times)
    assert values(a_table(tmp_path / "t.csv", body), Kind.TIME) == times


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
        ("2020-01-01\n5\n", "row 2, column 'x': found '5', expected a date without time zone as in row 1"),
        ("5\n2020-01-01\n", "row 2, column 'x': found '2020-01-01', expected a number as in row 1"),
        ("2020-01-01\n2020-01-01T00:00Z\n", "row 2, column 'x': found '2020-01-01T00:00Z'"),
        ("2020-01-01\nyesterday\n", "row 2, column 'x': found 'yesterday', expected a time"),
        ("2020-02-30\n", "row 1, column 'x': found '2020-02-30', expected a date that exists"),
        ("1\n99999999999999999999\n", "row 2, column 'x': found '99999999999999999999', expected a number of 64 bits"),
    ],
)
def test_what_is_no_time_is_refused_by_row(text: Path, body: str, shown: str) -> None:
    with pytest.raises(DataError, match=shown):
        values(a_table(text, "x,y\n" + body.replace("\n", ",\n")), Kind.TIME)


def test_times_are_not_read_without_a_form(text: Path) -> None:
    (piece,) = pieces(a_table(text, "x,y\n1,a\n"))
    with pytest.raises(ValueError, match="no form of t"):
        next(read(piece, {"t": ("x", Kind.TIME)}))
