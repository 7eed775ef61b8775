"""Sequences: a row per user with the items before the target in the order of time, for sequential models.

    train  all training items but the last  -> the last one; every step inside the history is a target as well
    val    what is known                    -> validation items
    test   what is known                    -> test items

Where a split has one target of every user, it is a number, else a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rec.data.views.view import SPLITS, TRAIN, Making, View, is_known, is_last, lists, numbers, read_records, starts
from rec.data.writing import write_table
from rec.storage import Storage


@dataclass(frozen=True, slots=True)
class FileTask:
    """The users of one file of records."""

    root: str
    name: str
    number: int
    folder: str
    shard_rows: int
    manifest: dict[str, Any]


class SequencesView(View):
    """Rows: user, history, target."""

    name = "sequences"

    def make(self, making: Making) -> None:
        """Write the rows of every split, file by file of records."""
        told = {"split": making.manifest["split"]}
        tasks = [
            FileTask(making.storage.uri_of(""), name, number, making.folder, making.shard_rows, told)
            for number, (name, _) in enumerate(making.manifest["records"])
        ]
        parts = making.runner.map(write_file, tasks, "prepare: sequences")
        making.splits = {split: [file for part, _ in parts for file in part[split]] for split in SPLITS}
        making.files += [name for split in SPLITS for name, _ in making.splits[split]]
        lost = sum(lost for _, lost in parts)
        if lost:
            making.dropped["row without a history to go on from"] = lost


def write_file(task: FileTask) -> tuple[dict[str, list[tuple[str, int]]], int]:
    """Write the rows of the users of one file of records; return the files, and how many rows had no history."""
    storage = Storage(task.root)
    table = read_records(storage, task.name)
    user, item, part, row = numbers(table, "user", "item", "part", "row")
    time = table["time"].to_numpy() if "time" in table.column_names else np.zeros(len(user), np.int64)
    if not in_order(user, time, row):
        order = np.lexsort((row, time, user))
        user, item, part = user[order], item[order], part[order]
    start = starts(user)
    files: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
    lost = 0
    for shard, first in enumerate(range(0, len(start), task.shard_rows)):
        end = start[first + task.shard_rows] if first + task.shard_rows < len(start) else len(user)
        chosen = slice(start[first], end)
        for split in SPLITS:
            rows, without = split_rows(user[chosen], item[chosen], part[chosen], split, task.manifest)
            lost += without
            name = f"{task.folder}/{split}/part-{task.number:05d}-{shard:05d}.parquet"
            write_table(storage, name, rows)
            files[split].append((name, len(rows)))
    return files, lost


def in_order(*keys: np.ndarray) -> bool:
    """Return whether rows are sorted by the first key, equal ones by the second, and so on, no two alike."""
    least = np.ones(max(len(keys[0]) - 1, 0), bool)
    for key in keys[:-1]:
        if (least & (key[1:] < key[:-1])).any():
            return False
        least &= key[1:] == key[:-1]
    return not (least & (keys[-1][1:] <= keys[-1][:-1])).any()


def split_rows(
    user: np.ndarray, item: np.ndarray, part: np.ndarray, split: str, manifest: dict[str, Any]
) -> tuple[pa.Table, int]:
    """Return one split's rows, and how many were left out because nothing is known before the target."""
    if split == "train":
        chosen = part == TRAIN
        user, item = user[chosen], item[chosen]
        target = is_last(user)
        known = ~target
    else:
        known = is_known(user, part, split, manifest)
        target = (part == SPLITS.index(split)) & ~known
    history, wanted = (chosen[starts(chosen)] for chosen in (user[known], user[target]))
    users = np.intersect1d(history, wanted, assume_unique=True)
    single = split == "train" or manifest["split"]["protocol"] in ("leave-one-out", "subjects")
    columns = {
        "user": pa.array(users, pa.int64()),
        "history": lists(users, user, item, known),
        "target": pa.array(item[target & np.isin(user, users)].astype(np.int32))
        if single
        else lists(users, user, item, target),
    }
    return pa.table(columns), len(wanted) - len(users)
