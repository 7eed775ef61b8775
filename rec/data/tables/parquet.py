"""Rows of Parquet files, row group by row group."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from rec.data.tables.files import UNREADABLE, Location, RowRange, opened, together
from rec.errors import DataError


def names(location: Location) -> tuple[str, ...]:
    """Return the names of a file's columns.

    Raises:
        DataError: the file cannot be read, or a name stands twice.
    """
    with _parquet(location) as file:
        found = tuple(file.schema_arrow.names)
    if twice := [name for name in found if found.count(name) > 1]:
        raise DataError(f"{location.name}: column {twice[0]!r} stands twice, expected once")
    return found


def schema(location: Location) -> pa.Schema:
    """Return the names and types of a file's columns."""
    with _parquet(location) as file:
        return file.schema_arrow


def stretches(location: Location, rows: int) -> list[RowRange]:
    """Return a file's rows in stretches of about `rows`: row groups together, or parts of one that is larger."""
    with _parquet(location) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    firsts = itertools.accumulate(sizes, initial=0)
    return together((RowRange(first, n, (g,)) for g, (first, n) in enumerate(zip(firsts, sizes, strict=False))), rows)


def batches(
    location: Location, stretch: RowRange, wanted: Sequence[str], rows_at_once: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the row number of a batch's first row and the batch; other row groups are not read."""
    at, end = stretch.first - stretch.skipped, stretch.first + stretch.rows
    with _parquet(location) as file:
        groups = list(stretch.row_groups)
        for batch in file.iter_batches(rows_at_once, row_groups=groups, columns=list(wanted)):
            start, stop = max(stretch.first - at, 0), min(end - at, len(batch))
            if start < stop:
                yield at + start, batch.slice(start, stop - start)
            at += len(batch)
            if at >= end:
                return


@contextmanager
def _parquet(location: Location) -> Iterator[pq.ParquetFile]:
    try:
        with opened(location) as file:
            yield pq.ParquetFile(file)
    except UNREADABLE as error:
        raise DataError(f"{location.name}: cannot be read ({error})") from error
