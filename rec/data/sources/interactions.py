"""Interactions from public files or own tables, as Arrow tables of (user, item, time, rating) in file order."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pyarrow import fs

from rec.errors import DataError
from rec.keys import ColumnNames, SourceConfig
from rec.storage import absolute, git_blob_sha1, open_uri

ROWS_PER_PIECE = 1 << 20
MOVIELENS_FILES = ("u.data", "ratings.dat", "ratings.csv")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one input file that can be read alone; pieces in order give the rows in file order."""

    uri: str
    index: int
    row_groups: tuple[int, ...] = ()
    member: str = ""
    """The file inside a zip archive."""


def pieces(source: SourceConfig) -> list[Piece]:
    """Return what to read, in order.

    Raises:
        DataError: there is nothing to read, or a file's checksum is not the declared one.
    """
    if not source.interactions:
        raise DataError("data.source.interactions: no path given")
    found: list[Piece] = []
    for uri in map(absolute, source.interactions):
        if source.kind == "movielens":
            found.append(_movielens(uri, len(found)))
        else:
            for path in table_files(uri, (".txt",) if source.kind == "sasrec" else (".parquet", ".csv")):
                found += _split(path, len(found))
    if source.sha1 is not None:
        filesystem, path = open_uri(found[0].uri)
        with filesystem.open_input_stream(path) as stream:
            actual = git_blob_sha1(stream.read())
        if actual != source.sha1:
            raise DataError(f"{found[0].uri}: git blob hash {actual}, expected {source.sha1}")
    return found


def read(piece: Piece, source: SourceConfig) -> Iterator[pa.Table]:
    """Yield a piece's rows: user and item as text, time and rating where the source has them."""
    filesystem, path = open_uri(piece.uri)
    names = source.columns
    if source.kind == "sasrec":
        yield from _csv(filesystem, path, piece.uri, ColumnNames(), " ", ["user", "item"])
    elif source.kind == "movielens":
        yield from _read_movielens(filesystem, path, piece)
    elif path.endswith(".parquet"):
        file = pq.ParquetFile(filesystem.open_input_file(path))
        for batch in file.iter_batches(ROWS_PER_PIECE, row_groups=list(piece.row_groups)):
            yield _select(pa.Table.from_batches([batch]), names, piece.uri)
    else:
        yield from _csv(filesystem, path, piece.uri, names, ",", None)


def estimated_rows(found: list[Piece]) -> int:
    """Return about how many rows the pieces hold: exact for Parquet, from the size in bytes for text."""
    total = 0
    for piece in found:
        filesystem, path = open_uri(piece.uri)
        if path.endswith(".parquet"):
            metadata = pq.ParquetFile(filesystem.open_input_file(path)).metadata
            total += sum(metadata.row_group(g).num_rows for g in piece.row_groups)
        else:
            total += (filesystem.get_file_info(path).size or 0) // 10
    return total


def table_files(uri: str, endings: tuple[str, ...] = (".parquet", ".csv")) -> list[str]:
    """Return the URIs of the files that `uri` names: itself, or the files of a folder."""
    filesystem, path = open_uri(uri)
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.File:
        return [uri]
    if info.type == fs.FileType.NotFound:
        raise DataError(f"{uri}: no such file or folder")
    inside = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    prefix = uri.rstrip("/")
    names = sorted(i.path[len(path.rstrip("/")) :] for i in inside if i.path.endswith(endings))
    if not names:
        raise DataError(f"{uri}: folder holds no file that ends in {' or '.join(endings)}")
    return [prefix + name for name in names]


def _split(uri: str, start: int) -> list[Piece]:
    """Return the pieces of one file: groups of row groups for Parquet, the whole file for text."""
    filesystem, path = open_uri(uri)
    if not path.endswith(".parquet"):
        return [Piece(uri, start)]
    try:
        metadata = pq.ParquetFile(filesystem.open_input_file(path)).metadata
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{uri}: not a readable Parquet file ({error})") from error
    groups: list[list[int]] = [[]]
    rows = 0
    for group in range(metadata.num_row_groups):
        if groups[-1] and rows + metadata.row_group(group).num_rows > ROWS_PER_PIECE:
            groups.append([])
            rows = 0
        groups[-1].append(group)
        rows += metadata.row_group(group).num_rows
    return [Piece(uri, start + i, tuple(g)) for i, g in enumerate(groups)]


def _movielens(uri: str, index: int) -> Piece:
    """Return the ratings file of an official MovieLens folder or zip archive."""
    filesystem, path = open_uri(uri)
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.File and path.endswith(".zip"):
        with filesystem.open_input_file(path) as raw, zipfile.ZipFile(raw) as archive:
            names = {name.rsplit("/", 1)[-1]: name for name in archive.namelist()}
        for name in MOVIELENS_FILES:
            if name in names:
                return Piece(uri, index, member=names[name])
    elif info.type == fs.FileType.File:
        return Piece(uri, index)
    else:
        for name in MOVIELENS_FILES:
            if filesystem.get_file_info(f"{path}/{name}").type == fs.FileType.File:
                return Piece(f"{uri.rstrip('/')}/{name}", index)
    raise DataError(f"{uri}: no MovieLens ratings here; expected one of {', '.join(MOVIELENS_FILES)}")


def _read_movielens(filesystem: fs.FileSystem, path: str, piece: Piece) -> Iterator[pa.Table]:
    """Yield the ratings of an official MovieLens file: u.data, ratings.dat or ratings.csv."""
    name = piece.member or path
    columns = ["user", "item", "rating", "time"]
    names = ColumnNames(time="time", rating="rating")
    if piece.member:
        with filesystem.open_input_file(path) as raw, zipfile.ZipFile(raw) as archive:
            data = archive.read(piece.member)
    elif name.endswith(".dat"):
        with filesystem.open_input_stream(path) as stream:
            data = stream.read()
    else:
        data = None
    if name.endswith(".dat") and data is not None:
        data = data.replace(b"::", b"\t")
    separator = "," if name.endswith(".csv") else "\t"
    skip = 1 if name.endswith(".csv") else 0
    stream = pa.BufferReader(data) if data is not None else filesystem.open_input_stream(path)
    yield from _csv_stream(stream, piece.uri, names, separator, columns, skip)


def _csv(
    filesystem: fs.FileSystem, path: str, uri: str, names: ColumnNames, separator: str, columns: list[str] | None
) -> Iterator[pa.Table]:
    yield from _csv_stream(filesystem.open_input_stream(path), uri, names, separator, columns, 0)


def _csv_stream(
    stream: pa.NativeFile, uri: str, names: ColumnNames, separator: str, columns: list[str] | None, skip: int
) -> Iterator[pa.Table]:
    """Yield tables of a text file; ids stay text, so that `007` is not `7`."""
    text = {name: pa.string() for name in (names.user, names.item)}
    try:
        reader = pa.csv.open_csv(
            stream,
            read_options=pa.csv.ReadOptions(column_names=columns, skip_rows=skip, block_size=16 << 20),
            parse_options=pa.csv.ParseOptions(delimiter=separator),
            convert_options=pa.csv.ConvertOptions(column_types=text, strings_can_be_null=True),
        )
        for batch in reader:
            yield _select(pa.Table.from_batches([batch]), names, uri)
    except pa.ArrowInvalid as error:
        raise DataError(f"{uri}: not the expected table ({error})") from error


def _select(table: pa.Table, names: ColumnNames, uri: str) -> pa.Table:
    """Return the mapped columns under our names and types."""
    wanted = {"user": names.user, "item": names.item, "time": names.time, "rating": names.rating}
    columns = {}
    for ours, theirs in wanted.items():
        if theirs is None:
            continue
        if theirs not in table.column_names:
            raise DataError(
                f"{uri}: no column {theirs!r} (data.source.columns.{ours}); "
                f"the file has {', '.join(table.column_names)}"
            )
        column = table[theirs]
        try:
            columns[ours] = _numbers(column) if ours in ("time", "rating") else column.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            expected = "numbers or timestamps" if ours in ("time", "rating") else "text or whole numbers"
            raise DataError(f"{uri}: column {theirs!r} is {column.type}, expected {expected} ({error})") from error
    return pa.table(columns)


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as float64; timestamps become microseconds."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return pc.cast(column.cast(pa.timestamp("us")), pa.int64()).cast(pa.float64(), safe=False)
    return column.cast(pa.float64(), safe=False)


def finite(column: pa.ChunkedArray) -> np.ndarray:
    """Return a mask of the values that are there and finite."""
    values = column.to_numpy()
    mask: np.ndarray = np.isfinite(values.astype(np.float64))
    return mask
