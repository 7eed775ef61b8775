"""Own tables of users, items and pairs: Parquet or CSV files or folders, in any file system."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from rec.data.sources.interactions import table_files
from rec.errors import DataError
from rec.storage import open_uri

ROWS_PER_READ = 256


@dataclass(frozen=True, slots=True)
class Shard:
    """Some rows of one file of items."""

    uri: str
    first: int
    rows: int
    folder: str
    """Where relative paths of pictures start."""
    stamp: str
    """Changes when the file does."""


def read_table(uris: Sequence[str]) -> pa.Table:
    """Return all rows of some files or folders.

    Raises:
        DataError: a file cannot be read, or there is none.
    """
    files = [path for uri in uris for path in table_files(uri)]
    tables = [pa.Table.from_batches(list(_batches(path, None))) for path in files]
    return pa.concat_tables(tables, promote_options="permissive")


def item_shards(uri: str, shard_rows: int) -> list[Shard]:
    """Return the shards of a table of items, in the order of its files and rows."""
    shards = []
    for path in table_files(uri):
        filesystem, inside = open_uri(path)
        info = filesystem.get_file_info(inside)
        stamp = f"{info.size}/{info.mtime_ns}"
        rows = _count(path)
        folder = path.rsplit("/", 1)[0]
        for first in range(0, rows, shard_rows):
            shards.append(Shard(path, first, min(shard_rows, rows - first), folder, stamp))
    if not shards:
        raise DataError(f"{uri}: no row")
    return shards


def read_shard(shard: Shard, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield a shard's rows in small tables; pictures of a few hundred rows are held at once."""
    at, end = 0, shard.first + shard.rows
    for batch in _batches(shard.uri, columns, shard.first, end):
        start, stop = max(shard.first - at, 0), min(end - at, len(batch))
        at += len(batch)
        if start < stop:
            yield pa.Table.from_batches([batch.slice(start, stop - start)])
        if at >= end:
            return


def raw_rows(uri: str) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Yield every row of Parquet, CSV or JSON lines as it is written, and what is wrong with it.

    Values of CSV are text as it stands in the file, so that an id like 007 is one.

    Raises:
        DataError: a file cannot be read at all.
    """
    for path in table_files(uri, (".parquet", ".csv", ".jsonl")):
        if path.endswith(".parquet"):
            for batch in _batches(path, None):
                yield from ((row, None) for row in batch.to_pylist())
            continue
        filesystem, inside = open_uri(path)
        try:
            with filesystem.open_input_stream(inside) as stream:
                text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
                yield from _csv_rows(text, path) if path.endswith(".csv") else _json_rows(text)
        except (OSError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error


def _csv_rows(text: io.TextIOWrapper, path: str) -> Iterator[tuple[dict[str, Any], str | None]]:
    rows = csv.reader(text)
    head = next(rows, None)
    if head is None:
        raise DataError(f"{path}: is empty, expected a first line with the names of columns")
    for row in rows:
        if row:
            wrong = len(row) != len(head)
            fault = f"{len(row)} values, expected {len(head)}: {', '.join(head)}" if wrong else None
            yield dict(zip(head, row, strict=False)), fault


def _json_rows(text: io.TextIOWrapper) -> Iterator[tuple[dict[str, Any], str | None]]:
    for line in text:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield {}, f"not JSON ({error})"
            continue
        yield (row, None) if isinstance(row, dict) else ({}, f"a {type(row).__name__}, expected an object")


def require(table: pa.Table | pa.Schema, names: Sequence[str], uri: str) -> None:
    """Check that columns are there.

    Raises:
        DataError: one is not.
    """
    known = table.column_names if isinstance(table, pa.Table) else table.names
    for name in names:
        if name not in known:
            raise DataError(f"{uri}: no column {name!r}; there are {', '.join(known)}")


def schema(uri: str) -> pa.Schema:
    """Return the columns of the first file."""
    path = table_files(uri)[0]
    filesystem, inside = open_uri(path)
    if path.endswith(".csv"):
        return next(_batches(path, None)).schema
    with filesystem.open_input_file(inside) as file:
        return pq.read_schema(file)


def _count(path: str) -> int:
    if path.endswith(".csv"):
        return sum(len(batch) for batch in _batches(path, None))
    filesystem, inside = open_uri(path)
    try:
        with filesystem.open_input_file(inside) as file:
            return int(pq.ParquetFile(file).metadata.num_rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _batches(
    path: str, columns: Sequence[str] | None, first: int = 0, end: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield rows from the file's start; row groups outside of `first` to `end` are yielded without their content."""
    filesystem, inside = open_uri(path)
    try:
        with filesystem.open_input_file(inside) as file:
            if path.endswith(".csv"):
                options = pyarrow.csv.ConvertOptions(include_columns=list(columns) if columns else None)
                yield from pyarrow.csv.open_csv(file, convert_options=options)
                return
            parquet = pq.ParquetFile(file)
            at = 0
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if at + rows <= first or (end is not None and at >= end):
                    empty = pa.nulls(rows)
                    yield pa.RecordBatch.from_arrays([empty], ["skipped"])
                else:
                    yield from parquet.iter_batches(ROWS_PER_READ, row_groups=[group], columns=columns)
                at += rows
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
