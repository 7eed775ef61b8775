"""Sequences: cleaning, partitions, order, splits."""

import numpy as np
import pyarrow as pa
import pytest
from rec.data.sequences import clean, group, partition, sorted_ids, split_rows

from rec.keys import SourceConfig


def events(rows: list[tuple], names=("user", "item", "time")) -> pa.Table:
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return pa.table(columns | {"order": list(range(len(rows)))})


def test_equal_times_keep_the_order_of_the_input() -> None:
    table = events([("1", "a", 5.0), ("1", "c", 5.0), ("1", "b", 5.0), ("1", "d", 1.0)])
    sequences, _ = group(table, ["a", "b", "c", "d"], 1)
    assert sequences.item.tolist() == [4, 1, 3, 2]


def test_without_time_the_order_of_the_input_decides() -> None:
    table = events([("1", "c"), ("2", "a"), ("1", "a"), ("1", "b")], ("user", "item"))
    sequences, _ = group(table, ["a", "b", "c"], 1)
    assert (sequences.user.tolist(), sequences.offset.tolist()) == (["1", "2"], [0, 3, 4])
    assert sequences.item.tolist() == [3, 1, 2, 1]


def test_drops_are_counted_by_reason() -> None:
    table = pa.table(
        {
            "user": ["1", None, "1", "2", "2"],
            "item": ["a", "a", None, "b", "a"],
            "time": [1.0, 2.0, 3.0, float("nan"), 4.0],
            "rating": [5.0, 5.0, 5.0, 5.0, 1.0],
        }
    )
    kept, dropped = clean(table, SourceConfig(minimum_rating=3.0))
    assert len(kept) == 1
    assert dropped == {"no user": 1, "no item": 1, "no time": 1, "no rating": 0, "rating below 3": 1}


def test_rare_items_repeated_rows_and_short_users_are_dropped() -> None:
    rows = [("1", "a", 1.0), ("1", "a", 1.0), ("1", "b", 2.0), ("1", "x", 3.0), ("2", "a", 1.0)]
    sequences, dropped = group(events(rows), ["a", "b"], 2)
    assert (sequences.user.tolist(), sequences.item.tolist()) == (["1"], [1, 2])
    assert dropped == {"item too rare": 1, "repeated row": 1, "user with fewer than 2 events": 1}


def test_an_item_seen_again_later_is_kept() -> None:
    sequences, _ = group(events([("1", "a", 1.0), ("1", "b", 2.0), ("1", "a", 3.0)]), ["a", "b"], 1)
    assert sequences.item.tolist() == [1, 2, 1]


def test_partitions_share_no_user_and_keep_order(rng: np.random.Generator) -> None:
    users = rng.integers(0, 50, 1000).astype(str)
    table = pa.table({"user": users, "order": np.arange(1000)})
    parts = partition(table, 7)
    seen = [set(part["user"].to_pylist()) for part in parts]
    assert sum(len(s) for s in seen) == len(set(users))
    assert sum(len(p) for p in parts) == 1000
    for part in parts:
        assert (np.diff(part["order"].to_numpy()) > 0).all()


@pytest.mark.parametrize(
    ("split", "history", "target"),
    [
        ("train", [[1, 2], [6]], [3, 7]),
        ("val", [[1, 2, 3], [6, 7]], [4, 8]),
        ("test", [[1, 2, 3, 4], [6, 7, 8]], [5, 9]),
    ],
)
def test_splits_leave_one_out(split: str, history: list, target: list) -> None:
    table = events([("1", str(i), float(i)) for i in range(1, 6)] + [("2", str(i), float(i)) for i in range(6, 10)])
    sequences, _ = group(table, [str(i) for i in range(1, 10)], 4)
    rows = split_rows(sequences, split, 100)
    assert rows.to_pydict() == {"user": [100, 101], "history": history, "target": target}


def test_ids_sort_as_numbers_where_all_are() -> None:
    assert sorted_ids(["10", "9", "1"]) == ["1", "9", "10"]
    assert sorted_ids(["10", "9", "x"]) == ["10", "9", "x"]
