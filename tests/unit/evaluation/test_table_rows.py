"""Raw values become rows that a system collates as those of its files."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rec.batch import Column
from rec.data.prepared import Prepared
from rec.data.stream import to_columns
from rec.evaluation.table_rows import EntityNames, Read, TableRows
from rec.nn.history import COLUMNS
from rec.systems.gavamoe.batch import COLUMNS as REVIEW
from tests.support.prepared import write_prepared

NOT_GIVEN = "column '{0}': not given; the answer is that for a {0} that is not known"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> EntityNames:
    """Two users, and three items of which index 0 is padding."""
    rows = pa.table({"user": [0]})
    items, users = pa.table({"id": ["a", "007", "9" * 18]}), pa.table({"id": ["u", "v"]})
    folder: Path = tmp_path_factory.mktemp("names")
    entities = {"user": (users, 0), "item": (items, 1)}
    splits = {"train": rows, "val": rows, "test": rows}
    return EntityNames(write_prepared(str(folder), splits=splits, entities=entities, tables={}, config={}))


def rows_of(values: list[Any], columns: Any, names: EntityNames) -> Read:
    return TableRows(columns, names).read(values)


def test_ids_are_text_and_whole_numbers_stand_for_theirs(names: EntityNames) -> None:
    rows = rows_of([{"history": ["a", "007"]}, {"history": [int("9" * 18)]}, {"history": [7]}], COLUMNS, names)
    assert [part.tolist() for part in rows.columns["history"]] == [[1, 2], [3], []]
    assert rows.notes[2] == ["column 'history': 1 of 1 are not known as item, such as '7'"]
    assert rows.columns["user"].tolist() == [-1, -1, -1]
    assert rows.columns["target"].tolist() == [0, 0, 0]
    assert rows.errors == [None, None, None]


@pytest.mark.parametrize(
    ("text", "expected"), [("a|007", [1, 2]), ('["a", "007"]', [1, 2]), ("a", [1]), ("", []), ("|", [])]
)
def test_lists_may_be_text(names: EntityNames, text: str, expected: list[int]) -> None:
    rows = rows_of([{"history": text}], COLUMNS, names)
    assert rows.errors == [None]
    assert rows.columns["history"][0].tolist() == expected


@pytest.mark.parametrize(
    "value", [True, 1.5, 2.0**53 + 2, 1e20, float("nan"), float("inf"), -float("inf"), {"id": "a"}]
)
@pytest.mark.parametrize(
    ("column", "depth"),
    [
        (Column("x", "int32", entity="item"), 0),
        (Column("x", "int64", entity="user", optional=True), 0),
        (Column("x", "int32", (-1,), entity="item"), 1),
        (Column("x", "int32", (-1, -1), entity="item"), 2),
    ],
)
def test_what_is_no_id_is_the_rows_error_at_any_depth(
    names: EntityNames, value: Any, column: Column, depth: int
) -> None:
    given = value
    for _ in range(depth):
        given = [given]
    rows = rows_of([{"x": given}], [column], names)
    assert rows.errors[0] is not None
    assert rows.errors[0].startswith(f"column 'x'{'[0]' * depth}: input should be a valid string, got ")


@pytest.mark.parametrize(("value", "text"), [(7.0, "7"), (2**32 + 1, "4294967297"), (-1, "-1"), (2**63, str(2**63))])
def test_a_number_is_its_digits_and_never_an_index(names: EntityNames, value: Any, text: str) -> None:
    rows = rows_of([{"x": value}, {"x": "a"}], [Column("x", "int32", entity="item")], names)
    assert rows.errors == [f"column 'x': item {text!r} is not known", None]
    rows = rows_of([{"x": [value, "a"]}], [Column("x", "int32", (-1,), entity="item")], names)
    assert rows.columns["x"][0].tolist() == [1]
    assert rows.notes == [[f"column 'x': 1 of 2 are not known as item, such as {text!r}"]]


ALONG = [
    Column("visit", "int64", place=True),
    Column("codes", "int32", (-1,), entity="item"),
    Column("earlier", "int64", (-1,), place=True, along="earlier"),
    Column("earlier_codes", "int32", (-1, -1), entity="item", optional=True, along="earlier"),
    Column("earlier_ward", "int64", (-1,), entity="user", optional=True, along="earlier"),
    Column("gap", "float32", (-1,), optional=True, along="earlier"),
]


def test_places_of_records_are_never_asked_and_what_counts_the_same_is_filled_up(names: EntityNames) -> None:
    given = [
        {"codes": ["a"], "visit": 3},
        {"codes": ["a"], "earlier_codes": [["a", "nobody"], []]},
        {"codes": ["a"], "earlier_ward": ["v", "nobody", "u"], "gap": [1, 2, 3]},
        {"codes": ["a"], "earlier_codes": [["a"]], "gap": [1.0, 2.0]},
    ]
    rows = rows_of(given, ALONG, names)
    assert rows.columns["visit"].tolist() == [-1, -1, -1]
    assert [part.tolist() for part in rows.columns["earlier"]] == [[], [-1, -1], [-1, -1, -1]]
    assert [[p.tolist() for p in part] for part in rows.columns["earlier_codes"]] == [[], [[1], []], [[], [], []]]
    assert [part.tolist() for part in rows.columns["earlier_ward"]] == [[], [-1, -1], [1, -1, 0]]
    assert [part.tolist() for part in rows.columns["gap"]] == [[], [0, 0], [1, 2, 3]]
    assert rows.errors == [
        None,
        None,
        None,
        "columns along 'earlier' must be as long as each other: 'earlier_codes' has 1, 'gap' has 2",
    ]


@pytest.mark.parametrize("text", ["[" * 100_000, "[1, ", "[" + "9" * 5000 + "]"])
def test_text_that_is_no_list_is_the_rows_error(names: EntityNames, text: str) -> None:
    rows = rows_of([{"history": text}, {"history": "a"}], COLUMNS, names)
    assert rows.errors[0] is not None
    assert "is no JSON list" in rows.errors[0]
    assert rows.kept.tolist() == [1]


def test_an_unknown_id_in_a_list_of_fixed_length_is_padding_or_refused(names: EntityNames) -> None:
    pair = Column("x", "int64", (2,), entity="item"), Column("x", "int64", (2,), entity="user")
    rows = rows_of([{"x": ["a", "nobody"]}], [pair[0]], names)
    assert rows.columns["x"][0].tolist() == [1, 0]
    rows = rows_of([{"x": ["u", "nobody"]}, {"x": ["u", "v"]}], [pair[1]], names)
    assert rows.errors == [
        "column 'x': 1 of 2 are not known as user, such as 'nobody'; a list of fixed length holds known ones alone",
        None,
    ]
    assert rows.columns["x"][0].tolist() == [0, 1]


def test_a_bad_row_takes_no_other_with_it(names: EntityNames) -> None:
    values: list[dict[str, Any]] = [{"history": ["a"]}, {"history": 3}, {}, {"history": ["007"]}]
    rows = rows_of(values, COLUMNS, names)
    assert rows.kept.tolist() == [0, 3]
    assert [part.tolist() for part in rows.columns["history"]] == [[1], [2]]
    assert rows.errors == [
        None,
        "column 'history': input should be a valid list, got '3'",
        "column 'history': field required",
        None,
    ]


def test_an_unknown_id_that_must_be_known_is_an_error(names: EntityNames) -> None:
    rows = rows_of([{"item": "b"}, {"item": "a"}], [Column("item", "int32", entity="item")], names)
    assert rows.errors == ["column 'item': item 'b' is not known", None]
    assert rows.columns["item"].tolist() == [1]


def test_visits_of_codes_keep_their_shape(names: EntityNames) -> None:
    column = Column("visits", "int64", (-1, -1), entity="item")
    rows = rows_of([{"visits": [["a", "b"], []]}, {"visits": [["007"]]}], [column], names)
    expected = to_columns(pa.table({"visits": pa.array([[[1], []], [[2]]], pa.list_(pa.list_(pa.int64())))}))
    for found, wanted in zip(rows.columns["visits"], expected["visits"], strict=True):
        assert [part.tolist() for part in found] == [part.tolist() for part in wanted]
    assert rows.notes == [["column 'visits': 1 of 2 are not known as item, such as 'b'"], []]


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        *(("int32", "12", 12), ("int32", 12.0, 12), ("int32", 1.5, None), ("int32", 2**31, None), ("int32", "x", None)),
        *(("int32", True, None), ("int64", 2**63, None), ("int64", 1e300, None), ("int32", "9" * 5000, None)),
        *(("float32", True, None), ("float32", 1e39, None), ("float32", "nan", None), ("float32", "Infinity", None)),
        *(("float32", "0.5", 0.5), ("float32", 2, 2.0), ("float32", [1.0], None)),
        *(("bool", "true", True), ("bool", 0, False), ("bool", "maybe", None)),
        *(("str", "salt", "salt"), ("str", "", ""), ("str", 3, None)),
    ],
)
def test_values_are_of_their_type_or_refused(names: EntityNames, dtype: str, value: Any, expected: Any) -> None:
    rows = rows_of([{"x": value}], [Column("x", dtype)], names)
    if expected is None:
        assert rows.errors[0] is not None
        assert rows.errors[0].startswith("column 'x'")
    else:
        assert rows.errors == [None]
        assert rows.columns["x"].tolist() == [expected]


def test_a_list_of_fixed_length_has_it(names: EntityNames) -> None:
    column = Column("vector", "float32", (2,))
    rows = rows_of([{"vector": [1, 2]}, {"vector": [1]}], [column], names)
    assert rows.errors == [
        None,
        "column 'vector': list should have at least 2 items after validation, not 1, got '[1]'",
    ]
    assert np.stack(rows.columns["vector"]).tolist() == [[1.0, 2.0]]


def test_names_of_entities_go_both_ways(planted: Prepared) -> None:
    names = EntityNames(planted)
    raw = names.raw("item", np.array([1, 3, 0, -1, 10**6]))
    assert raw.to_pylist() == [*planted.items["id"].take([0, 2]).to_pylist(), None, None, None]
    assert names.members("item").find([*raw.to_pylist()[:2], "unheard"]).tolist() == [1, 3, -1]


def test_a_column_that_is_not_read_is_told(names: EntityNames) -> None:
    rows = rows_of(
        [{"histroy": ["a"], "history": []}, {"history": ["a"], "target": 3}, {"history": ["a"], "colour": None}],
        COLUMNS,
        names,
    )
    assert [len(notes) for notes in rows.notes] == [2, 0, 1]
    assert rows.notes[0] == [NOT_GIVEN.format("user"), "column 'histroy' is not read; there are user, history"]


@pytest.mark.parametrize(
    ("columns", "row", "entities"),
    [
        (REVIEW, {"user": "u", "item": "a"}, []),
        (REVIEW, {"user": "u"}, ["item"]),
        (REVIEW, {"item": "007", "user": ""}, ["user"]),
        (REVIEW, {}, ["user", "item"]),
        (COLUMNS, {"history": ["a"]}, []),  # known by a list
        (COLUMNS, {"history": []}, ["user"]),
    ],
)
def test_an_answer_for_somebody_who_is_not_given_says_so(
    names: EntityNames, columns: Any, row: dict[str, Any], entities: list[str]
) -> None:
    rows = rows_of([row], columns, names)
    assert rows.errors == [None]
    assert rows.notes == [[NOT_GIVEN.format(entity) for entity in entities]]
