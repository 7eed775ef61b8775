"""View: how records become the rows that a kind of model trains on, and the tables that go with them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rec.data.runner import Runner
from rec.data.writing import write_array, write_parts
from rec.errors import DataError
from rec.storage import Storage

SPLITS = ("train", "val", "test")
TRAIN, VALIDATION, TEST = range(3)
FOLDER = "views"
FILE_NAME = re.compile(r"\w[\w.]*")


@dataclass(slots=True)
class Making:
    """What a view is made from, and what has been written of it."""

    storage: Storage
    """The folder of the data set's files."""
    folder: str
    """The view's own, below it."""
    manifest: dict[str, Any]
    runner: Runner
    splits: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def shard_rows(self) -> int:
        """Rows of a file of a split."""
        return int(self.manifest["shard_rows"])

    def records(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all records, sorted by user."""
        return pa.concat_tables([read_records(self.storage, name, columns) for name, _ in self.manifest["records"]])

    def rows(self, split: str, table: pa.Table, per_file: int) -> None:
        """Write the rows of a split.

        Raises:
            DataError: there is no such split.
        """
        if split not in SPLITS:
            raise DataError(f"{self.folder}: rows of a split {split!r}, expected one of {', '.join(SPLITS)}")
        self.splits[split] = write_parts(self.storage, f"{self.folder}/{split}", table, per_file)
        self.files += [name for name, _ in self.splits[split]]

    def array(self, name: str, array: np.ndarray) -> None:
        """Write a table of the view.

        Raises:
            DataError: its name is no name of a file, or is that of a table of the data set, which it would hide.
        """
        if not FILE_NAME.fullmatch(name):
            raise DataError(f"{self.folder}: a table {name!r}, expected a name of letters, digits, '_' and '.'")
        if self.storage.exists(f"{name}.npy"):
            raise DataError(f"{self.folder}: a table {name!r} would hide the data set's own; choose another name")
        write_array(self.storage, f"{self.folder}/{name}", array)
        self.files.append(f"{self.folder}/{name}.npy")


class View(ABC):
    """Makes the rows of the splits from records; named by systems, and by an import path outside the package."""

    name: ClassVar[str]
    """What `System.view` and `data.views` call it; a view of your own is called by its import path."""

    @abstractmethod
    def make(self, making: Making) -> None:
        """Write the rows of every split, and the tables that go with them."""


class RowsView(View):
    """Rows that are the records themselves, in the order of the input."""

    name = "records"

    def make(self, making: Making) -> None:
        """Write each split's records."""
        table = making.records()
        table = table.take(pc.sort_indices(table["row"]))
        for number, split in enumerate(SPLITS):
            chosen = table.filter(pc.equal(table["part"], pa.scalar(number, pa.int8())))
            making.rows(split, chosen.drop_columns(["row", "part"]), making.shard_rows)


def read_records(storage: Storage, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the records of one file."""
    with storage.open(name) as file:
        return pq.read_table(file, columns=None if columns is None else list(columns))


def known_parts(split: str, hides_validation: bool) -> tuple[int, ...]:
    """Return the parts that are known where a split is answered."""
    return {"train": (), "val": (TRAIN,), "test": (TRAIN,) if hides_validation else (TRAIN, VALIDATION)}[split]


def is_known(user: np.ndarray, part: np.ndarray, split: str, manifest: dict[str, Any]) -> np.ndarray:
    """Return which records are known where a split is answered.

    Where whole users are held out, all but the last of their records are.
    """
    known = np.isin(part, known_parts(split, manifest["split"]["hides_validation"]))
    if manifest["split"]["protocol"] == "subjects" and split != "train":
        known |= (part == SPLITS.index(split)) & ~is_last(user)
    return known


def is_last(user: np.ndarray) -> np.ndarray:
    """Return which records are the last of their user; sorted by user."""
    return np.append(user[1:] != user[:-1], True) if len(user) else np.zeros(0, bool)


def starts(user: np.ndarray) -> np.ndarray:
    """Return where each user's records begin; sorted by user."""
    return np.flatnonzero(np.roll(is_last(user), 1))


def lists(users: np.ndarray, user: np.ndarray, item: np.ndarray, chosen: np.ndarray) -> pa.Array:
    """Return each user's chosen items as a list; users and records are sorted by user."""
    start = starts(user)
    listed = np.isin(user[start], users)
    inside = chosen & np.repeat(listed, np.diff(start, append=len(user)))
    count = np.add.reduceat(inside, start, dtype=np.int64)[listed] if len(start) else start
    offset = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offset), pa.array(item[inside].astype(np.int32)))


def user_rows(user: np.ndarray, item: np.ndarray, part: np.ndarray, split: str, manifest: dict[str, Any]) -> pa.Table:
    """Return a row per user of a split: user, history (what is known), target (what is to be found)."""
    known = is_known(user, part, split, manifest)
    target = (part == SPLITS.index(split)) & ~known
    users = user[target]
    users = users[starts(users)]
    return pa.table(
        {
            "user": pa.array(users, pa.int64()),
            "history": lists(users, user, item, known),
            "target": lists(users, user, item, target),
        }
    )


def numbers(table: pa.Table, *names: str) -> Iterator[np.ndarray]:
    """Yield columns as arrays."""
    return (table[name].to_numpy() for name in names)
