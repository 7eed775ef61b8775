"""Records: cleaning, partitions, order, what is dropped and counted."""

import pickle
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rec.data.ids import sorted_ids
from rec.data.stages.records import (
    GroupTask,
    IdVocabulary,
    Records,
    clean,
    compact,
    core,
    frequent,
    group,
    partition,
    said_before,
)
from rec.errors import DataError
from tests.support.own import own, own_tables, prepared, quiet, write_events


def events(rows: list[tuple[Any, ...]], names: tuple[str, ...] = ("user", "item", "time")) -> pa.Table:
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return pa.table(columns | {"row": list(range(len(rows)))})


def grouped(table: pa.Table, items: list[str], least: int, users: list[str] | None = None, once: bool = False) -> Any:
    task = GroupTask("", 0, zlib.compress(pickle.dumps(items)), zlib.compress(pickle.dumps(users)), once, least)
    return group(table, items, users, task)


def test_equal_times_keep_the_order_of_the_input() -> None:
    table = events([("1", "a", 5), ("1", "c", 5), ("1", "b", 5), ("1", "d", 1)])
    assert grouped(table, ["a", "b", "c", "d"], 1)[0]["item"].to_pylist() == [4, 1, 3, 2]


def test_without_time_the_order_of_the_input_decides() -> None:
    table = events([("1", "c"), ("2", "a"), ("1", "a"), ("1", "b")], ("user", "item"))
    found, users, _, _ = grouped(table, ["a", "b", "c"], 1)
    assert users == ["1", "2"]
    assert found["user"].to_pylist() == [0, 0, 0, 1]
    assert found["item"].to_pylist() == [3, 1, 2, 1]


def test_drops_are_counted_by_reason() -> None:
    table = pa.table(
        {
            "user": ["1", None, "1", "2", "2"],
            "item": ["a", "a", None, "b", "a"],
            "time": [1.0, 2.0, 3.0, float("nan"), 4.0],
            "rating": [5.0, 5.0, 5.0, 5.0, 1.0],
        }
    )
    kept, dropped = clean(table, 3.0)
    assert len(kept) == 1
    assert dropped == {
        "record without user": 1, "record without item": 1, "record without time": 1, "record without rating": 0,
        "record with a rating below 3": 1,
    }  # fmt: skip


def test_rare_items_repeated_rows_and_short_users_are_dropped() -> None:
    rows = [("1", "a", 1), ("1", "a", 1), ("1", "b", 2), ("1", "x", 3), ("2", "a", 1)]
    found, users, dropped, unknown = grouped(events(rows), ["a", "b"], 2)
    assert (users, found["item"].to_pylist()) == (["1"], [1, 2])
    assert dropped == {
        "repeated record": 1, "record of a user with fewer than 2 records": 1, "user with fewer than 2 records": 1
    }  # fmt: skip
    assert unknown["item"] == {"x": 1}


def test_an_item_seen_again_later_is_kept() -> None:
    rows = [("1", "a", 1), ("1", "b", 2), ("1", "a", 3)]
    assert grouped(events(rows), ["a", "b"], 1)[0]["item"].to_pylist() == [1, 2, 1]


def test_once_takes_the_first_record_of_a_user_and_an_item() -> None:
    rows = [("1", "a", 3), ("1", "b", 2), ("1", "a", 1)]
    found, _, dropped, _ = grouped(events(rows), ["a", "b"], 1, once=True)
    assert found["item"].to_pylist() == [1, 2]
    assert found["row"].to_pylist() == [2, 1]
    assert dropped["repeated record"] == 1


@pytest.mark.parametrize("once", [False, True])
def test_what_was_said_before_is_that_of_the_whole_table(rng: np.random.Generator, once: bool) -> None:
    table = pd.DataFrame({name: rng.integers(0, high, 2_000) for name, high in (("u", 9), ("t", 40), ("i", 30))})
    table = table.sort_values(["u", "t"], kind="stable")
    wanted = table[["u", "i"] if once else ["u", "t", "i"]].duplicated()
    user, item, time = (table[name].to_numpy() for name in ("u", "i", "t"))
    found = said_before(user, item, None if once else time)
    assert found.any()
    assert found.tolist() == wanted.tolist()
    assert not len(said_before(user[:0], item[:0], time[:0]))


def test_users_of_a_table_keep_its_order_and_strangers_are_told() -> None:
    rows = [("b", "x", 1), ("a", "x", 1), ("stranger", "x", 1)]
    found, users, _, unknown = grouped(events(rows), ["x"], 1, users=["b", "idle", "a"])
    assert users == []
    assert found["user"].to_pylist() == [0, 2]
    assert unknown["user"] == {"stranger": 1}


def test_partitions_share_no_user_and_keep_order(rng: np.random.Generator) -> None:
    users = rng.integers(0, 50, 1000).astype(str)
    table = pa.table({"user": users, "row": np.arange(1000)})
    parts = partition(table, 7)
    seen = [set(part["user"].to_pylist()) for part in parts]
    assert sum(len(s) for s in seen) == len(set(users))
    assert sum(len(p) for p in parts) == 1000
    for part in parts:
        assert (np.diff(part["row"].to_numpy()) > 0).all()


def test_ids_sort_as_numbers_where_all_are() -> None:
    assert sorted_ids(["10", "9", "1"]) == ["1", "9", "10"]
    assert sorted_ids(["10", "9", "x"]) == ["10", "9", "x"]


def test_frequent_items_are_counted_over_all_pieces() -> None:
    counts = [(["a", "b"], np.array([1, 2])), (["a", "c"], np.array([1, 1]))]
    assert frequent(counts, 2) == ["a", "b"]
    assert frequent(counts, 2, only=["a", "c"]) == ["a"]


def bipartite(pairs: list[tuple[int, int]]) -> Records:
    user, item = np.array(pairs).T
    return Records(user, item, np.arange(len(pairs)), {})


def test_a_core_is_left_when_dropping_others_again_and_again() -> None:
    # User 2 and item 3 fall first; then user 3, who had item 3 and one more, has one record left and falls as well.
    records = bipartite([(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (3, 3), (3, 2)])
    dropped: Counter[str] = Counter()
    found = core(records, 2, dropped)
    assert list(zip(found.user_E.tolist(), found.item_E.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert dropped == {"record of a user or item with fewer than 2 records": 3}


def test_an_empty_core_is_refused() -> None:
    with pytest.raises(DataError, match=r"data.filter.core: no record is left of 2 with 2"):
        core(bipartite([(0, 1), (1, 2)]), 2, Counter())


def test_who_is_left_is_numbered_anew_unless_the_unseen_are_kept() -> None:
    records = bipartite([(0, 2), (2, 3)])
    names = IdVocabulary(["a", "b", "c"], ["x", "y", "z"])
    whole = compact(records, names, ("user", "item"))
    assert whole.user_E.tolist() == [0, 2]
    assert names.users == ["a", "b", "c"]
    found = compact(records, names, ())
    assert (found.user_E.tolist(), found.item_E.tolist()) == ([0, 1], [1, 2])
    assert (names.users, names.items) == (["a", "c"], ["y", "z"])


def test_dropped_rows_are_reported_by_reason(tmp_path: Path) -> None:
    frame = pd.DataFrame({"who": ["a"] * 6 + [None, "b"], "what": [*list("uvwxyzu"), "v"], "when": range(8)})
    frame.to_parquet(tmp_path / "e.parquet")
    data = prepared(tmp_path / "out", {"read": own(tmp_path, tmp_path / "e.parquet").read})
    assert data.manifest["dropped"] == {"record without user": 1, "record of a user with fewer than 4 records": 1}
    assert data.manifest["left_out"] == {"user with fewer than 4 records": 1}


def test_read_is_kept_and_dropped_together(tmp_path: Path) -> None:
    frame = pd.DataFrame({"who": ["a"] * 7 + [None, "b"], "what": [*list("uvwxyzzu"), "v"], "when": [*range(7), 7, 8]})
    frame.loc[6, "when"] = 5  # repeats row 5
    frame.to_parquet(tmp_path / "e.parquet")
    counts = (data := prepared(tmp_path / "out", {"read": own(tmp_path, tmp_path / "e.parquet").read})).manifest[
        "counts"
    ]
    assert counts["interactions_read"] == counts["interactions"] + sum(data.manifest["dropped"].values()) == 9


def test_unknown_ids_are_dropped_and_counted(tmp_path: Path) -> None:
    sections = own_tables(tmp_path)
    pairs = pd.read_parquet(tmp_path / "pairs.parquet")
    pairs.loc[0, "who"] = "stranger"
    pairs.loc[1, "sku"] = None
    pairs.loc[2, "stars"] = 1
    pd.concat([pairs, pairs.tail(1)]).to_parquet(tmp_path / "pairs.parquet")
    assert prepared(tmp_path / "data", sections).manifest["dropped"] == {
        "record with a rating below 4": 1, "repeated record": 1, "record of an unknown user": 1,
        "record without item": 1,
    }  # fmt: skip


def test_too_many_unknown_ids_are_refused_and_one_is_named(tmp_path: Path) -> None:
    sections = own_tables(tmp_path)
    pairs = pd.read_parquet(tmp_path / "pairs.parquet")
    pairs["who"], pairs["sku"] = "u1", [f"i{n % 10}" for n in range(len(pairs) - 9)] + ["ghost"] * 9
    pairs.to_parquet(tmp_path / "pairs.parquet")
    words = (
        r"pairs.parquet: 9 of 60 records name no known item, such as 'ghost'; at most 5.0% may \(data.filter.maximum"
    )
    with pytest.raises(DataError, match=words):
        prepared(tmp_path / "data", sections)
    sections["filter"] = sections["filter"] | {"maximum_unknown_share": 0.15, "repeats": "keep"}
    assert prepared(tmp_path / "data", sections).manifest["dropped"]["record of an unknown item"] == 9


def test_keep_counts_what_differs_in_time_and_once_does_not(tmp_path: Path) -> None:
    rows = [("u", f"i{k}", k) for k in range(6)] + [("u", "i0", 9), ("u", "i0", 9)]
    pd.DataFrame(rows, columns=["who", "what", "when"]).to_csv(tmp_path / "e.csv", index=False)
    for repeats, interactions, dropped in (("", 7, 1), ("keep", 7, 1), ("once", 6, 2)):
        config = own(tmp_path / f"out{repeats}", tmp_path / "e.csv", filter={"repeats": repeats})
        data = prepared(tmp_path / f"out{repeats}", {"read": config.read, "filter": config.filter})
        assert data.manifest["counts"]["interactions"] == interactions
        assert data.manifest["dropped"] == {"repeated record": dropped}


def test_a_split_at_random_takes_the_first_of_repeated_records(tmp_path: Path) -> None:
    events = write_events(tmp_path / "e.csv")
    pd.concat([pd.read_csv(events)] * 2).assign(when=range(72)).to_csv(events, index=False)
    read = own(tmp_path, events).read
    assert prepared(tmp_path / "a", {"read": read}).manifest["counts"]["interactions"] == 72
    found = prepared(tmp_path / "b", {"read": read, "split": {"protocol": "ratio"}})
    assert found.manifest["counts"]["interactions"] == 36


def test_items_without_a_required_modality_go_with_their_records(tmp_path: Path) -> None:
    sections = own_tables(tmp_path, words=["", None, *["salt"] * 8])
    sections["filter"] = sections["filter"] | {"required": ["text"]}
    data = prepared(tmp_path / "data", sections)
    assert data.items["id"].to_pylist() == [f"i{n}" for n in range(2, 10)]
    assert data.manifest["left_out"] == {"item without text": 2}
    assert data.manifest["counts"]["interactions"] + data.manifest["dropped"]["record of an unknown item"] == 60


def test_the_unseen_are_kept_in_the_order_of_their_table(tmp_path: Path) -> None:
    sections = own_tables(tmp_path)
    pairs = pd.read_parquet(tmp_path / "pairs.parquet")
    pairs[~pairs["sku"].isin(["i3"])].to_parquet(tmp_path / "pairs.parquet")
    items = pd.read_parquet(tmp_path / "items.parquet")
    items[::-1].to_parquet(tmp_path / "items.parquet")
    assert prepared(tmp_path / "a", sections).items["id"].to_pylist() == [f"i{n}" for n in reversed(range(10))]
    sections["filter"] = {"unseen": ["user"]}
    found = prepared(tmp_path / "b", sections).items["id"].to_pylist()
    assert found == [f"i{n}" for n in range(10) if n != 3]


def test_a_core_is_filtered_before_the_split(tmp_path: Path) -> None:
    events = write_events(tmp_path / "e.csv")
    frame = pd.concat([pd.read_csv(events), pd.DataFrame({"who": ["u0"], "what": ["rare"], "when": [999]})])
    frame.to_csv(events, index=False)
    data = prepared(tmp_path / "out", {"read": own(tmp_path, events).read, "filter": {"core": 3}})
    assert "rare" not in data.items["id"].to_pylist()
    assert data.manifest["dropped"] == {"record of a user or item with fewer than 3 records": 1}
    assert quiet("") is None
