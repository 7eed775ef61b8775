"""What is known of items as text, held in memory or in files that are read as they are needed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from rec.data.sources.metadata import FIELDS, named
from rec.storage import Storage

PICTURES = ("image", "image present")


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Return all columns of items but pictures as text, empty where nothing is known."""
    return _columns(frame).drop(columns=["item"], errors="ignore").rename(columns={"id": "item"})


def _columns(frame: pd.DataFrame) -> pd.DataFrame:
    kept = {name: frame[name] for name in frame.columns if name not in PICTURES}
    text = {name: column.astype(object).where(column.notna(), "").astype(str) for name, column in kept.items()}
    return pd.DataFrame(text)


def facts_of(frame: pd.DataFrame, fields: Sequence[str]) -> list[dict[str, str]]:
    """Return what is known of some items by field, "" where it is unknown.

    A field is a column as it is, or what every film has under whichever name its column goes by.
    """
    text = as_text(frame)
    films = named(text)
    columns = [(films if name in FIELDS else text)[name].tolist() for name in fields]
    return [dict(zip(fields, values, strict=True)) for values in zip(*columns, strict=True)]


class Items(Protocol):
    """What is known of items, a row each, in the order of their indices."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of what is known."""

    def __len__(self) -> int:
        """Return how many items there are."""

    def rows(self, places: Sequence[int]) -> pd.DataFrame:
        """Return what is known of some items; places count from 0."""


class HeldItems:
    """Items in memory."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self.columns = [str(name) for name in frame.columns]

    def __len__(self) -> int:
        return len(self.frame)

    def rows(self, places: Sequence[int]) -> pd.DataFrame:
        """Return what is known of some items."""
        return self.frame.iloc[list(places)]


class FiledItems:
    """Items in files, all but their pictures as text: one file is in memory at a time."""

    def __init__(self, storage: Storage, columns: Sequence[str], bounds: Sequence[int]) -> None:
        self.storage, self.columns = storage, list(columns)
        self.bounds = np.array(bounds)
        """The place of each file's first item, and how many items there are."""
        self._last: tuple[int, pd.DataFrame] | None = None

    @classmethod
    def write(cls, storage: Storage, frames: Iterable[pd.DataFrame]) -> FiledItems:
        """Write a file per table and return what they hold together; what the folder held is deleted.

        Args:
            storage: The folder.
            frames: Some items each, all with the same columns; at least one.
        """
        storage.delete("")
        bounds, columns = [0], list[str]()
        for number, frame in enumerate(frames):
            columns = [str(name) for name in frame.columns]
            _write(storage, _file(number), pa.Table.from_pandas(_columns(frame), preserve_index=False))
            bounds.append(bounds[-1] + len(frame))
        return cls(storage, columns, bounds)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}

    def __len__(self) -> int:
        return int(self.bounds[-1])

    @property
    def files(self) -> range:
        """The numbers of the files."""
        return range(len(self.bounds) - 1)

    def first(self, number: int) -> int:
        """Return the place of a file's first item."""
        return int(self.bounds[number])

    def read(self, number: int) -> pd.DataFrame:
        """Return what is known of the items of a file."""
        with self.storage.open(_file(number)) as file:
            found: pd.DataFrame = pa.ipc.open_file(file).read_all().to_pandas()
        return found

    def rows(self, places: Sequence[int]) -> pd.DataFrame:
        """Return what is known of some items; those of one file are best asked for together."""
        return pd.concat(self._rows(np.array(places, np.int64)), ignore_index=True)

    def _rows(self, place_N: np.ndarray) -> Iterator[pd.DataFrame]:
        file_N = np.searchsorted(self.bounds, place_N, "right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(file_N)) + 1).tolist(), len(place_N)]
        for start, end in itertools.pairwise(cuts):
            number = int(file_N[start]) if len(file_N) else 0
            last = self._last
            if last is None or last[0] != number:
                self._last = last = number, self.read(number)
            yield last[1].iloc[place_N[start:end] - self.first(number)]


def evenly(place_N: np.ndarray, most: int) -> np.ndarray:
    """Return some places, evenly from all of them where they are more."""
    return place_N if len(place_N) <= most else place_N[np.linspace(0, len(place_N) - 1, most).astype(int)]


def in_parts(frame: pd.DataFrame, rows: int) -> Iterator[pd.DataFrame]:
    """Yield a table in parts of so many rows, one at least."""
    for start in range(0, max(len(frame), 1), rows):
        yield frame.iloc[start : start + rows]


def _file(number: int) -> str:
    return f"part-{number:05d}.arrow"


def _write(storage: Storage, name: str, table: pa.Table) -> None:
    def fill(stream: IO[bytes]) -> None:
        with pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table)

    storage.write_with(name, fill)
