"""What is left out, in words: every count with its own unit."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.data.stages.drops import in_words, numbered, of_others, of_records
from rec.errors import DataError
from tests.support.own import own, quiet


@pytest.mark.parametrize(
    ("dropped", "words"),
    [
        ({}, "nothing"),
        ({"repeated record": 0}, "nothing"),
        ({"repeated record": 1}, "1 repeated record"),
        ({"repeated record": 1_200}, "1,200 repeated records"),
        (
            {"record with a rating below 3": 2, "record without user": 1},
            "2 records with a rating below 3, 1 record without user",
        ),
        (
            {"record of a user with fewer than 4 records": 97, "user with fewer than 4 records": 44},
            "97 records of 44 users with fewer than 4 records",
        ),
        (
            {"record of a user with fewer than 4 records": 1, "user with fewer than 4 records": 1},
            "1 record of 1 user with fewer than 4 records",
        ),
        (
            {"item without text": 2, "event of an unknown patient": 3},
            "3 events of an unknown patient, 2 items without text",
        ),
    ],
)
def test_a_number_goes_before_what_it_counts(dropped: dict[str, int], words: str) -> None:
    assert in_words(dropped) == words


def test_records_and_others_are_counted_apart() -> None:
    dropped = {
        "user twice or without id": 1,
        "repeated record": 2,
        "id of an unknown code": 3,
        "event without patient": 4,
    }
    assert of_records(dropped) == {"event without patient": 4, "repeated record": 2}
    assert of_others(dropped) == {"id of an unknown code": 3, "user twice or without id": 1}
    assert numbered(2, "row without a history to go on from") == "2 rows without a history to go on from"


def events(path: Path, counts: dict[str, int]) -> Path:
    rows = [(user, f"i{k}", k) for user, count in counts.items() for k in range(count)]
    pd.DataFrame(rows, columns=["who", "what", "when"]).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("filter", "words"),
    [
        ({}, "dropped 5 records of 2 users with fewer than 4 records"),
        ({"minimum_user_count": 4}, "dropped 5 records of 2 users with fewer than 4 records"),
        ({"minimum_user_count": 7}, "dropped 10 records of 3 users with fewer than 7 records"),
    ],
)
def test_users_with_few_records_are_counted_with_them_and_the_default_is_told(
    tmp_path: Path, filter: dict[str, Any], words: str
) -> None:
    said: list[str] = []
    path = events(tmp_path / "e.csv", {"a": 8, "b": 3, "c": 2, "d": 5, "e": 9})
    prepare(own(tmp_path / "out", path, filter=filter), InProcess(), said.append)
    assert said[0].endswith(words)
    needs = (
        "data.split.protocol needs 4 records of a user: a history, and a target of each split; more are asked for by "
    )
    assert [line.endswith(f"{needs}data.filter.minimum_user_count") for line in said[1:2]] == [not filter]


def test_where_nobody_is_left_the_default_is_told(tmp_path: Path) -> None:
    path = events(tmp_path / "e.csv", {"a": 3, "b": 2})
    with pytest.raises(
        DataError, match=r"no record is left of 5 \(dropped: 5 records of 2 users .*\); data.split.prot"
    ):
        prepare(own(tmp_path / "out", path), InProcess(), quiet)


def test_a_table_without_rows_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"e.csv: holds no row, expected a row per record"):
        prepare(own(tmp_path / "out", events(tmp_path / "e.csv", {})), InProcess(), quiet)
