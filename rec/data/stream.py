"""The order in which rows are seen: one global order per epoch, cut into steps and ranks without any state.

Where a row comes in an epoch depends on the seed and the epoch alone, not on how many workers share the work, so a
run goes on at any step with any number of workers and each row is still seen exactly once per epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rec.batch import Column, Columns, stored
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
                with self.storage.open(name) as file:
                    table = pq.read_table(file, columns=self.columns)
            except (OSError, pa.ArrowInvalid) as error:
                raise DataError(f"{self.storage.uri}/{name}: cannot be read ({error})") from error
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
        buffer: list[pa.Table] = []
        ready = 0
        skip = start * self.batch_size
        step = start
        for table in self._ordered(reader, epoch, skip):
            buffer.append(table)
            ready += len(table)
            while ready and ready >= min(self.batch_size, self.rows - step * self.batch_size):
                whole = pa.concat_tables(buffer)
                size = min(self.batch_size, ready)
                yield share(whole.slice(0, size), rank, world_size)
                buffer, ready = [whole.slice(size)], ready - size
                step += 1

    def _ordered(self, reader: Reader, epoch: int, skip: int) -> Iterator[pa.Table]:
        """Yield the epoch's rows in order, from the one after the first `skip`."""
        files = self._files(epoch)
        window = self.window or max(self.rows, 1)
        first_window = skip // window
        done, names = 0, []
        for index, (_, rows) in enumerate(files):
            if done + rows > first_window * window:
                names = [name for name, _ in files[index:]]
                break
            done += rows
        drop = first_window * window - done
        held: list[pa.Table] = []
        number, size = first_window, 0
        for table in reader.read(names):
            kept = table.slice(min(drop, len(table)))
            drop -= len(table) - len(kept)
            if not self.window:
                late = min(skip - first_window * window, len(kept))
                skip -= late
                yield kept.slice(late)
                continue
            held, size = [*held, kept], size + len(kept)
            while size >= window:
                whole = pa.concat_tables(held)
                yield self._shuffled(whole.slice(0, window), epoch, number, skip)
                held, size, number = [whole.slice(window)], size - window, number + 1
        if size:
            yield self._shuffled(pa.concat_tables(held), epoch, number, skip)

    def _shuffled(self, table: pa.Table, epoch: int, number: int, skip: int) -> pa.Table:
        order = generator(self.seed, "window", epoch, number).permutation(len(table))
        late = min(max(skip - number * self.window, 0), len(table))
        return table.take(pa.array(order[late:]))

    def _files(self, epoch: int) -> list[tuple[str, int]]:
        if not self.window:
            return list(self.files)
        order = generator(self.seed, "files", epoch).permutation(len(self.files))
        return [self.files[i] for i in order]


def share(table: pa.Table, rank: int, world_size: int) -> tuple[Columns, bool]:
    """Return one rank's contiguous part of a step's rows and whether it counts (False for a stand-in row)."""
    start, end = len(table) * rank // world_size, len(table) * (rank + 1) // world_size
    if start == end:
        return to_columns(table.slice(0, 1)), False
    return to_columns(table.slice(start, end - start)), True


def to_columns(table: pa.Table) -> Columns:
    """Return a table as columns: numpy arrays, and lists of numpy arrays where rows are ragged."""
    columns: dict[str, np.ndarray | list[np.ndarray]] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            offsets = column.offsets.to_numpy()
            values = column.values.to_numpy(zero_copy_only=False)
            columns[name] = np.split(values[offsets[0] : offsets[-1]], (offsets[1:-1] - offsets[0]))
        else:
            columns[name] = column.to_numpy(zero_copy_only=False)
    return columns
