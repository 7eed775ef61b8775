"""Attributes of every type that tables have: what is missing is absent, and a request says the same as a table."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rec.data.attributes import Attributes
from rec.errors import DataError, RequestError

FIRST, LAST = datetime(2020, 1, 1), datetime(2020, 1, 3)


def fitted(cells: Any) -> tuple[Attributes, np.ndarray, list[bool]]:
    frame = pd.DataFrame({"x": cells})
    found = Attributes.fit(frame, ["x"])
    number, known = found.encode(frame)
    assert Attributes.from_json(found.to_json()).columns == found.columns
    return found, number, known.tolist()


@pytest.mark.parametrize(
    "cells",
    [
        pd.Series([FIRST, None, LAST], dtype="datetime64[ns]"),
        pd.Series([FIRST, None, LAST], dtype="datetime64[s]"),
        pd.Series([FIRST, None, LAST], dtype="datetime64[us]").dt.tz_localize("Europe/Berlin"),
        pd.Series([date(2020, 1, 1), None, date(2020, 1, 3)], dtype=object),
        pd.Series([FIRST, pd.NaT, LAST], dtype=object),
        pd.Series([pd.Timestamp(FIRST), pd.NA, np.datetime64("2020-01-03")], dtype=object),
        pd.Series([timedelta(days=1), None, timedelta(days=3)], dtype="timedelta64[ns]"),
        pd.Series([timedelta(hours=1), None, timedelta(hours=2)], dtype=object),
        pd.Series(["2020-01-01", None, "2020-01-03"]),
        pd.Series(["2020-01-01T00:00:00Z", "", "2020-01-03 00:00"]),
        pd.Series([1, None, 3], dtype="Int64"),
        pd.Series([1.0, np.nan, 3.0], dtype="Float32"),
        pd.Series([Decimal("0.1"), None, Decimal("0.3")], dtype=object),
        pd.Series([1.0, np.inf, 3.0]),
        pd.Series([1.0, -np.inf, 3.0]),
        pd.Series([1, pd.NA, 3], dtype=object),
        pd.Series(["1", "nan", "3"]),
        pd.Series(["1", "NaN", " 3 "]),
        pd.Series(["1", " ", "3"]),
        pd.Series(["1", "inf", "3"]),
        pd.Series([1, None, 3], dtype="Int64").astype("category"),
    ],
)
def test_what_is_missing_among_numbers_and_times_is_absent(cells: Any) -> None:
    _, number, known = fitted(cells)
    np.testing.assert_allclose(number[:, 0], [-1, 0, 1], atol=1e-6)
    assert known == [True, False, True]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (pd.Series([True, None, False], dtype=object), ("False", "True")),
        (pd.Series([True, None, False], dtype="boolean"), ("False", "True")),
        (pd.Series(["m", None, "f"], dtype="category"), ("f", "m")),
        (pd.Series(["m", pd.NA, "f"], dtype="string"), ("f", "m")),
        (pd.Series(["m", np.nan, "f"], dtype=object), ("f", "m")),
        (pd.Series(["m", "", "f"]), ("f", "m")),
        (pd.Series(["m", "nan", "f"]), ("f", "m")),
        (pd.Series(["many", None, 3.0], dtype=object), ("3", "many")),
        (pd.Series([True, np.nan, "f"], dtype=object), ("True", "f")),
    ],
)
def test_what_is_missing_among_words_is_absent_and_no_value(cells: Any, values: tuple[str, ...]) -> None:
    found, number, known = fitted(cells)
    assert found.columns[0].values == values
    assert number[1].tolist() == [0, 0]
    assert number[[0, 2]].sum(1).tolist() == [1, 1]
    assert known == [True, False, True]


@pytest.mark.parametrize("cells", [[None, None], [np.nan, np.inf], pd.Series([pd.NaT, pd.NaT]), ["", "nan"]])
def test_a_column_without_a_value_is_absent(cells: Any) -> None:
    _, number, known = fitted(cells)
    assert number.tolist() == [[0], [0]]
    assert known == [False, False]


@pytest.mark.parametrize("value", [0.1, 7, 1e300, -(2**62), FIRST])
def test_a_constant_column_is_present_and_zero(value: Any) -> None:
    _, number, known = fitted(pd.Series([value] * 3 + [None], dtype=object))
    assert number.tolist() == [[0]] * 4
    assert known == [True] * 3 + [False]


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_numbers_near_the_largest_keep_their_order(kind: str) -> None:
    most = 1e308 if kind == "float64" else 3e38
    _, number, _ = fitted(pd.Series([-most, 0.0, most], dtype=kind))
    np.testing.assert_allclose(number[:, 0], [-(1.5**0.5), 0, 1.5**0.5], rtol=1e-6)


def test_days_are_counted_in_utc_and_in_parts() -> None:
    east = datetime(2020, 1, 2, 6, tzinfo=timezone(timedelta(hours=6)))
    found, number, _ = fitted(pd.Series([datetime(2020, 1, 1, tzinfo=UTC), east, LAST.replace(tzinfo=UTC)]))
    np.testing.assert_allclose(number[:, 0], [-(1.5**0.5), 0, 1.5**0.5], rtol=1e-6)
    assert found.columns[0].mean == (date(2020, 1, 2) - date(1970, 1, 1)).days
    noon = found.encode_one({"x": "2020-01-02T12:00:00Z"})[0]
    assert noon[0] == pytest.approx(0.5 / (2 / 3) ** 0.5)


@pytest.mark.parametrize(
    ("cells", "asked"),
    [
        ([True, False, True], [True, False, True]),
        ([True, False, True], ["true", "FALSE", "True"]),
        (pd.Series([True, False, None], dtype=object), [True, False, None]),
        (["true", "false", "true"], [True, False, "true"]),
        ([1, 0, 1], [True, False, 1]),
        ([1, 2, 3], [1, 2.0, "3"]),
        (["1", "2", "many"], [1, 2.0, "many"]),
        (pd.Series([1.0, 2.0, "many"], dtype=object), [1, "2", "many"]),
        (pd.Series([FIRST, None, LAST]), ["2020-01-01", None, "2020-01-03T00:00"]),
        (pd.Series([timedelta(days=1), None, timedelta(days=3)]), [1, None, 3.0]),
        (["f", None, "m"], ["f", "", "m"]),
        ([0.5, np.nan, 1.5], [0.5, float("nan"), "1.5"]),
    ],
)
def test_a_request_gives_the_numbers_of_a_table_with_the_same_values(cells: Any, asked: list[Any]) -> None:
    found, number, known = fitted(cells)
    for row, value in enumerate(asked):
        one, there = found.encode_one({"x": value})
        assert one.tolist() == number[row].tolist()
        assert there == known[row]


@pytest.mark.parametrize(
    ("cells", "value", "text"),
    [
        ([True, False], "yes", "'yes', expected one of False, True"),
        (["a", "b"], True, "'True', expected one of a, b"),
        ([1, 2], "old", "expected a number, got 'old'"),
        ([1, 2], 10**400, "expected a number, got '1000"),
        ([1, 2], float("inf"), "expected a number, got 'inf'"),
        ([1, 2], [1], "expected one value, got "),
        (pd.Series([FIRST, LAST]), "monday", "expected a time such as 2024-02-29, or a number of days, got 'monday'"),
    ],
)
def test_a_value_that_no_table_holds_is_refused(cells: Any, value: Any, text: str) -> None:
    with pytest.raises(RequestError, match=f"^attribute 'x': {text}"):
        fitted(cells)[0].encode_one({"x": value})


@pytest.mark.parametrize("cell", [[1, 2], {"a": 1}, np.array([1, 2])])
def test_a_column_of_lists_is_refused_by_name(cell: Any) -> None:
    with pytest.raises(DataError, match="attribute 'x': holds lists, expected one value in each cell"):
        fitted(pd.Series([cell, None], dtype=object))


def test_attributes_are_fitted_once_and_refuse_what_they_do_not_know() -> None:
    frame = pd.DataFrame({"age": [20.0, 40.0, None], "sex": ["f", "m", None]})
    fitted = Attributes.fit(frame, ["age", "sex"])
    number, known = fitted.encode(frame)
    assert number.tolist() == [[-1, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert known.tolist() == [True, True, False]
    again = Attributes.from_json(fitted.to_json())
    assert again.encode_one({"age": 60})[0].tolist() == [3, 0, 0]
    for given, text in (
        ({"sex": "x"}, "expected one of f, m"),
        ({"size": 1}, "known: age, sex"),
        ({"age": "old"}, "number"),
    ):
        with pytest.raises(RequestError, match=text):
            again.encode_one(given)
