"""The order in which rows are seen: one global order per epoch, cut into steps and ranks without any state.

Where a row comes in an epoch depends on the seed and the epoch alone, not on how many workers share the work, so a
run goes on at any step with any number of workers and each row is still seen exactly once per epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rec.batch import Column, Columns, RaggedColumn, stored
from rec.errors import DataError
from rec.seeds import generator
from rec.storage import Storage

CACHE_BYTES = 1 << 30


class Reader(Protocol):
    """Reads files of a split."""

    def read(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Yield one table per file, in this order."""


class CachedReader:
    """Reads files one by one and keeps them in memory while they fit."""

    def __init__(self, storage: Storage, columns: Sequence[Column]) -> None:
        self.storage, self.columns = storage, stored(columns)
        self.cache: dict[str, pa.Table] = {}
        self.cached_bytes = 0

    def read(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Yield one table per file, in this order."""
        # What another reader of the same files adds meanwhile must not shift what is still to be loaded.
        held = {name: self.cache[name] for name in names if name in self.cache}
        loaded = self._load([name for name in names if name not in held])
        for name in names:
            if name in held:
                yield held[name]
                continue
            table = next(loaded)
            if self.cached_bytes + table.nbytes <= CACHE_BYTES:
                self.cached_bytes += table.nbytes
                self.cache[name] = table
            yield table

    def _load(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Yield one table per file that is not in memory."""
        for name in names:
            try:
                with self.storage.telling(name), self.storage.open(name) as file:
                    table = pq.read_table(file, columns=self.columns)
            except (OSError, pa.ArrowInvalid) as error:
                raise DataError(f"{self.storage.uri_of(name)}: cannot be read ({error})") from error
            yield table


@dataclass(frozen=True, slots=True)
class Plan:
    """The order of one split's rows."""

    files: tuple[tuple[str, int], ...]
    """Name and number of rows of each file."""
    batch_size: int
    """Rows per step over all ranks."""
    window: int
    """Rows that are shuffled together; 0 keeps the order of the files."""
    seed: int

    @property
    def rows(self) -> int:
        """Rows per epoch."""
        return sum(rows for _, rows in self.files)

    @property
    def steps(self) -> int:
        """Steps per epoch, the last of which may be smaller."""
        return -(-self.rows // self.batch_size)

    def batches(
        self, reader: Reader, *, epoch: int, start: int, rank: int, world_size: int
    ) -> Iterator[tuple[Columns, bool]]:
        """Yield this rank's rows of every step from `start`, and whether they count.

        A rank for which a short last step has no row gets the step's first row and False, so that every rank makes
        the same number of steps.
        """
        first_S, end_S, counts_S = self._parts(start, rank, world_size)
        held: list[pa.Table] = []
        ready, step = 0, 0
        for table in self._own(reader, epoch, first_S, end_S):
            held.append(table)
            ready += len(table)
            while step < len(first_S) and ready >= (size := int(end_S[step] - first_S[step])):
                whole = pa.concat_tables(held)
                yield to_columns(whole.slice(0, size)), bool(counts_S[step])
                held, ready = [whole.slice(size)], ready - size
                step += 1

    def _parts(self, start: int, rank: int, world_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return where a rank's part of each step from `start` begins and ends in the epoch, and whether it counts."""
        begin_S = np.arange(start, self.steps) * self.batch_size
        size_S = np.minimum(self.batch_size, self.rows - begin_S)
        first_S, end_S = (begin_S + size_S * part // world_size for part in (rank, rank + 1))
        counts_S = first_S < end_S
        return np.where(counts_S, first_S, begin_S), np.where(counts_S, end_S, begin_S + 1), counts_S

    def _own(self, reader: Reader, epoch: int, first_S: np.ndarray, end_S: np.ndarray) -> Iterator[pa.Table]:
        """Yield the rows of the stretches [first, end) of the epoch, in order; no other row is gathered."""
        if not len(first_S):
            return
        for begin, table in self._stretches(reader, epoch, int(first_S[0])):
            some = slice(np.searchsorted(end_S, begin, "right"), np.searchsorted(first_S, begin + len(table)))
            first, end = first_S[some].clip(begin) - begin, end_S[some].clip(max=begin + len(table)) - begin
            if not len(first):
                continue
            if not self.window:
                yield from (table.slice(a, b - a) for a, b in zip(first.tolist(), end.tolist(), strict=True))
                continue
            order = self._order(epoch, begin, len(table))
            yield table.take(pa.array(np.concatenate([order[a:b] for a, b in zip(first, end, strict=True)])))

    def _stretches(self, reader: Reader, epoch: int, skip: int) -> Iterator[tuple[int, pa.Table]]:
        """Yield rows as files have them, whole windows at a time and a step's at least, with the place of the first.

        The first stretch is the one whose window holds the row after the first `skip`.
        """
        window = self.window or self.batch_size
        size = window * -(-self.batch_size // window)
        begin = skip // window * window
        done, names = 0, []
        files = self._files(epoch)
        for index, (_, rows) in enumerate(files):
            if done + rows > begin:
                names = [name for name, _ in files[index:]]
                break
            done += rows
        drop, ready = begin - done, 0
        held: list[pa.Table] = []
        for table in reader.read(names):
            held.append(table.slice(drop))
            ready, drop = ready + len(table) - drop, 0
            while ready >= size:
                whole = pa.concat_tables(held)
                yield begin, whole.slice(0, size)
                held, ready, begin = [whole.slice(size)], ready - size, begin + size
        if ready:
            yield begin, pa.concat_tables(held)

    def _order(self, epoch: int, begin: int, rows: int) -> np.ndarray:
        """Return which of so many rows from `begin`, the first of a window, comes at each place."""
        found = []
        for start in range(0, rows, self.window):
            rng = generator(self.seed, "window", epoch, (begin + start) // self.window)
            found.append(start + rng.permutation(min(self.window, rows - start)))
        return np.concatenate(found)

    def _files(self, epoch: int) -> list[tuple[str, int]]:
        if not self.window:
            return list(self.files)
        order = generator(self.seed, "files", epoch).permutation(len(self.files))
        return [self.files[i] for i in order]


def to_columns(table: pa.Table) -> Columns:
    """Return a table as columns: numpy arrays, `RaggedColumn`s where rows are lists."""
    return {name: _column(table[name]) for name in table.column_names}


def _column(column: pa.ChunkedArray) -> np.ndarray | RaggedColumn:
    if column.num_chunks == 1:
        return _values(column.chunk(0))
    array = column.combine_chunks()
    return _values(pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array)


def _values(array: pa.Array) -> Any:
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        offset = array.offsets.to_numpy()
        return RaggedColumn(_values(array.values[offset[0] : offset[-1]]), offset - offset[0])
    return array.to_numpy(zero_copy_only=False)
