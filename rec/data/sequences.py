"""From interactions to one row per user: cleaning, partitions by user, order, splits.

A split's row is a user, the history before the target, and the target:

    train  items[:-3] -> items[-3]      every step inside the history is a target as well
    val    items[:-2] -> items[-2]
    test   items[:-1] -> items[-1]
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.sources.interactions import finite
from rec.keys import SourceConfig

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Sequences:
    """Users' items in time order: user u's are item[offset[u]:offset[u + 1]]."""

    user: np.ndarray
    """Raw ids (U,)."""
    offset: np.ndarray
    """int64 (U + 1,)."""
    item: np.ndarray
    """int32 item indices from 1."""


def clean(table: pa.Table, source: SourceConfig) -> tuple[pa.Table, Counter[str]]:
    """Return the rows that can be used, and how many were dropped for which reason."""
    dropped: Counter[str] = Counter()
    keep = np.ones(len(table), dtype=bool)
    for name in table.column_names:
        valid = pc.is_valid(table[name]).to_numpy() if name in ("user", "item") else finite(table[name])
        dropped[f"no {name}"] += int((keep & ~valid).sum())
        keep &= valid
    if source.minimum_rating is not None and "rating" in table.column_names:
        high = table["rating"].to_numpy() >= source.minimum_rating
        dropped[f"rating below {source.minimum_rating:g}"] += int((keep & ~high).sum())
        keep &= high
    return table.filter(pa.array(keep)), dropped


def partition(table: pa.Table, count: int) -> list[pa.Table]:
    """Return `count` tables that share no user; a user's rows stay in order."""
    if count == 1:
        return [table]
    users = table["user"].combine_chunks().dictionary_encode()
    hashes = pd.util.hash_array(users.dictionary.to_numpy(zero_copy_only=False).astype(object))
    part = (hashes % count).astype(np.int64)[users.indices.to_numpy()]
    order = np.argsort(part, kind="stable")
    bounds = np.searchsorted(part[order], np.arange(count + 1))
    ordered = table.take(pa.array(order))
    return [ordered.slice(a, b - a) for a, b in itertools.pairwise(bounds)]


def group(table: pa.Table, items: Sequence[str], minimum_user_count: int) -> tuple[Sequences, Counter[str]]:
    """Return users' sequences over the vocabulary `items` (index 1 is its first), sorted by raw user id.

    Rows are ordered by (user, time, order in the input): the order in the input decides between equal times, and
    alone where there is no time. A row equal to an earlier one in user, item and time counts once.
    """
    dropped: Counter[str] = Counter()
    codes = pc.index_in(table["item"], value_set=pa.array(items, pa.string()))
    known = pc.is_valid(codes)
    dropped["item too rare"] = int(len(table) - pc.sum(known).as_py() if len(table) else 0)
    table, codes = table.filter(known), codes.filter(known)
    item = codes.to_numpy().astype(np.int32) + 1
    names, user = _sorted_codes(table["user"])
    time = table["time"].to_numpy() if "time" in table.column_names else np.zeros(len(table))
    place = table["order"].to_numpy()
    order = np.lexsort((place, time, user))
    user, item, time = user[order], item[order], time[order]
    if "time" in table.column_names:
        repeated = pd.DataFrame({"u": user, "i": item, "t": time}).duplicated().to_numpy()
        dropped["repeated row"] = int(repeated.sum())
        user, item = user[~repeated], item[~repeated]
    count = np.bincount(user, minlength=len(names))
    enough = count >= minimum_user_count
    dropped[f"user with fewer than {minimum_user_count} events"] = int(count[~enough].sum())
    item = item[enough[user]]
    offset = np.concatenate([[0], np.cumsum(count[enough])]).astype(np.int64)
    return Sequences(names[enough], offset, item), dropped


def split_rows(sequences: Sequences, split: str, first_user: int) -> pa.Table:
    """Return one split's rows: user (index from `first_user`), history (ragged), target."""
    back = len(SPLITS) - SPLITS.index(split)
    length = np.diff(sequences.offset) - back
    ends = sequences.offset[:-1] + length
    offset = np.concatenate([[0], np.cumsum(length)])
    where = np.repeat(sequences.offset[:-1] - offset[:-1], length) + np.arange(offset[-1])
    return pa.table(
        {
            "user": pa.array(first_user + np.arange(len(length)), pa.int64()),
            "history": pa.LargeListArray.from_arrays(offset, sequences.item[where]).cast(pa.list_(pa.int32())),
            "target": pa.array(sequences.item[ends], pa.int32()),
        }
    )


def sorted_ids(ids: Sequence[str]) -> list[str]:
    """Return ids in the order of their numbers where all are whole numbers, of their text otherwise."""
    try:
        return sorted(ids, key=int)
    except ValueError:
        return sorted(ids)


def _sorted_codes(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted distinct values and each row's position among them."""
    encoded = column.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    ordered = sorted_ids(names)
    position = {name: i for i, name in enumerate(ordered)}
    table = np.array([position[name] for name in names], dtype=np.int64)
    indices = encoded.indices.to_numpy()
    return np.array(ordered, dtype=object), table[indices] if len(indices) else np.zeros(0, np.int64)
