"""Foreign tables, whole or in pieces that can be read apart from one another."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.table_format import TableFormat
from rec.data.tables import parquet, text
from rec.data.tables.files import Location, RowRange, files, locate
from rec.data.tables.layout import DELIMITERS, TextLayout, complete, layout
from rec.data.tables.times import ColumnTimes, TimeForm, as_written, to_time
from rec.data.tables.types import PLAIN, as_declared, typed
from rec.data.tables.values import (
    EXACT,
    Kind,
    Place,
    plain,
    plain_type,
    to_id,
    to_number,
    to_part,
    to_text,
    with_points,
)
from rec.errors import DataError

ROW = "row"
"""The column that every table read has: the number of the row in its file, from 0."""
ROWS_AT_ONCE = 1 << 16
ROWS_PER_PIECE = 1 << 20
Wanted = Mapping[str, tuple[str, Kind]]
"""Our names, with the column's own name and what it is read as."""
EMPTY = {
    Kind.ID: pa.string(), Kind.TEXT: pa.string(), Kind.NUMBER: pa.float64(), Kind.PART: pa.int8(),
    Kind.TIME: pa.int64(),
}  # fmt: skip
CASTS = {Kind.ID: to_id, Kind.TEXT: to_text, Kind.NUMBER: to_number, Kind.PART: to_part}


@dataclass(frozen=True, slots=True)
class ForeignTable:
    """Files that make up one table, and how they are written."""

    paths: tuple[str, ...]
    """Files or folders of any file system that pyarrow opens."""
    format: TableFormat = PLAIN
    key: str = ""
    """The config's table that sets the format, for errors; "" where none does."""
    origins: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """By the URI of a file that was made from another one: that one's name, and how many of its rows come before."""

    @property
    def name(self) -> str:
        """What errors call it."""
        return ", ".join(dict.fromkeys(name for name, _ in self.origins.values()) if self.origins else self.paths)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one file that can be read alone; pieces in order give the rows in file order."""

    location: Location
    index: int
    """Among the table's pieces."""
    stretch: RowRange
    stamp: str
    """Changes when the file does."""
    layout: TextLayout | None = None
    """Of text files."""
    key: str = ""
    """The config's table that sets the format."""

    @property
    def uri(self) -> str:
        """The file, or the archive it is in."""
        return self.location.uri

    @property
    def member(self) -> str:
        """The file inside an archive, or ""."""
        return self.location.member

    @property
    def first(self) -> int:
        """The number of its first row in the file."""
        return self.stretch.first

    @property
    def rows(self) -> int:
        """How many rows it has, exactly."""
        return self.stretch.rows

    @property
    def row_groups(self) -> tuple[int, ...]:
        """Of Parquet files: where the rows are."""
        return self.stretch.row_groups

    @property
    def folder(self) -> str:
        """Where relative paths of pictures start."""
        return self.location.folder

    @property
    def note(self) -> str:
        """What a person should know about the file, or ""."""
        return self.layout.note if self.layout is not None else ""

    def place(self, column: str, first: int) -> Place:
        """Return where values of a column come from, of which the first stands in this row of the file."""
        return Place(self.location.name, column, self.location.before + first, self.key)


def columns(table: ForeignTable) -> list[str]:
    """Return the names of the columns that every file of a table has, in the order of the first.

    Raises:
        DataError: a file cannot be read, or names a column twice.
    """
    every = [_names(location, table.format) for location in _locations(table)]
    return [name for name in every[0] if all(name in names for names in every)]


def schema(table: ForeignTable) -> pa.Schema:
    """Return the columns of a table's first file with their types; those of text files are text.

    Raises:
        DataError: the file cannot be read, or names a column twice.
    """
    location = _locations(table)[0]
    names = _names(location, table.format)
    return parquet.schema(location) if location.form == "parquet" else pa.schema([(n, pa.string()) for n in names])


def require(table: ForeignTable, names: Mapping[str, str | None]) -> None:
    """Check that every file of a table has some columns.

    Args:
        table: The table.
        names: Config keys, with the column that each wants; None and "" want none.

    Raises:
        DataError: a column is missing, with the file, the key and the columns that are there.
    """
    for location in _locations(table):
        known = _names(location, table.format)
        declared = {f"types.{name}": name for name in table.format.types}
        for key, name in {**names, **declared}.items():
            if name and name not in known:
                raise _missing(location, name, known, key)


def pieces(table: ForeignTable, rows: int = ROWS_PER_PIECE) -> list[Piece]:
    """Return a table's pieces of about `rows` rows, in the order of its files and rows.

    A text file is one piece where its parts cannot be read alone: see `rec.data.tables.text.stretches`.

    Raises:
        DataError: a file cannot be read, or a row of it has too few or too many values.
    """
    found: list[Piece] = []
    for location in _locations(table):
        known, stamp = None, location.stamp()
        if location.form == "parquet":
            stretches = parquet.stretches(location, rows)
        else:
            known = complete(layout(location, table.format), location)
            stretches = text.stretches(location, known, rows)
        first = len(found)
        found += [Piece(location, first + n, s, stamp, known, table.key) for n, s in enumerate(stretches)]
    return found


def time_form(table: ForeignTable, column: str, parts: Sequence[Piece] | None = None) -> TimeForm:
    """Return what a column's times become, told from all of its values.

    Args:
        table: The table.
        column: The column's own name.
        parts: The table's pieces, where they are known.

    Raises:
        DataError: a value is no time, or of another kind than those before.
    """
    seen, name = ColumnTimes(), table.name
    for piece in parts if parts is not None else pieces(table):
        for first, arrays in _batches(piece, [column], ROWS_PER_PIECE):
            at = piece.place(column, first)
            seen.look(as_written(arrays[column], at, table.format), at)
    return seen.form(table.format.time_unit, Place(name, column))


def read(
    piece: Piece,
    wanted: Wanted,
    format: TableFormat = PLAIN,
    *,
    rows_at_once: int = ROWS_AT_ONCE,
    times: Mapping[str, TimeForm] | None = None,
) -> Iterator[pa.Table]:
    """Yield a piece's rows under our names, and their numbers in the file as `row`.

    Args:
        piece: What to read.
        wanted: Our names, with the column and the kind of each.
        format: How the table is written; declared types are those of columns of Kind.ANY.
        rows_at_once: Rows of a table at most.
        times: `time_form` of every column of Kind.TIME, by our name.

    Raises:
        DataError: a column is missing, or a value is not of its kind.
    """
    assert ROW not in wanted, f"{ROW!r} is the number of the row"
    forms = times or {}
    lacking = [ours for ours, (_, kind) in wanted.items() if kind is Kind.TIME and ours not in forms]
    if lacking:
        raise ValueError(f"times: no form of {', '.join(lacking)}; see time_form")
    theirs = list(dict.fromkeys(name for name, _ in wanted.values()))
    for first, arrays in _batches(piece, theirs, rows_at_once):
        done = {}
        for ours, (name, kind) in wanted.items():
            at = piece.place(name, first)
            if kind is Kind.TIME:
                done[ours] = to_time(as_written(arrays[name], at, format), at, forms[ours])
            else:
                done[ours] = (
                    _any(arrays[name], at, format) if kind is Kind.ANY else _cast(kind, format)(arrays[name], at)
                )
        length = len(next(iter(arrays.values())))
        done[ROW] = pa.array(np.arange(first, first + length, dtype=np.int64))
        whole = pa.table(done)
        for start in range(0, length, rows_at_once):
            yield whole.slice(start, rows_at_once)


def read_whole(table: ForeignTable, wanted: Wanted) -> pa.Table:
    """Return all rows of a table, columns of Kind.ANY typed from all of their values.

    Raises:
        DataError: a file cannot be read, a column is missing, or a value is not of its kind.
    """
    parts = pieces(table)
    if not parts:
        require(table, {ours: name for ours, (name, _) in wanted.items()})
    forms = {ours: time_form(table, name, parts) for ours, (name, kind) in wanted.items() if kind is Kind.TIME}
    found: dict[str, list[tuple[Piece, pa.ChunkedArray]]] = {ours: [] for ours in (*wanted, ROW)}
    for piece in parts:
        for part in read(piece, wanted, table.format, times=forms):
            for ours in found:
                found[ours].append((piece, part[ours]))
    done = {}
    for ours, (name, kind) in wanted.items():
        if kind is Kind.ANY:
            done[ours] = _joined(found[ours], name, table)
        else:
            done[ours] = _chunked([column for _, column in found[ours]], EMPTY[kind])
    done[ROW] = _chunked([column for _, column in found[ROW]], pa.int64())
    return pa.table(done)


def _locations(table: ForeignTable) -> list[Location]:
    if not table.paths:
        raise DataError("no path given, expected the files or folders of a table")
    found = [locate(uri) for path in table.paths for uri in files(path)]
    made = ((location, *table.origins.get(location.uri, ("", 0))) for location in found)
    return [
        replace(location, origin=origin, before=before) if origin else location for location, origin, before in made
    ]


def notes_of(parts: Iterable[Piece]) -> list[str]:
    """Return what a person should know about the files of some pieces, each once."""
    return list(dict.fromkeys(f"{piece.location.name}: {piece.note}" for piece in parts if piece.note))


def _names(location: Location, format: TableFormat) -> tuple[str, ...]:
    return parquet.names(location) if location.form == "parquet" else layout(location, format).names


def _batches(piece: Piece, names: Sequence[str], rows: int) -> Iterator[tuple[int, dict[str, pa.Array]]]:
    """Yield the number of a batch's first row and its columns; the first of all where none is wanted."""
    location = piece.location
    known = piece.layout.names if piece.layout is not None else parquet.names(location)
    for name in names:
        if name not in known:
            raise _missing(location, name, known)
    if piece.layout is not None:
        yield from text.batches(location, piece.layout, names, piece.stretch)
        return
    for first, batch in parquet.batches(location, piece.stretch, names or known[:1], rows):
        yield first, dict(zip(batch.schema.names, batch.columns, strict=True))


def _any(array: pa.Array, at: Place, format: TableFormat) -> pa.Array:
    """Return a column as it is, or of its declared type; times wait for the whole column."""
    declared = format.types.get(at.column)
    return array if declared in (None, "time") else as_declared(array, declared, at, format)


def _cast(kind: Kind, format: TableFormat) -> Callable[[pa.Array, Place], pa.Array]:
    """Return what casts values that are written in some way."""
    cast = CASTS[kind]
    if kind is Kind.NUMBER and format.decimal == ",":
        return lambda array, at: cast(with_points(plain(array), at), at)
    return cast


def _joined(found: list[tuple[Piece, pa.ChunkedArray]], name: str, table: ForeignTable) -> pa.ChunkedArray:
    """Return a column of Kind.ANY: text files typed together, then what holds the types of all files."""
    declared, where = table.format.types.get(name), f"{table.name}: column {name!r}"
    kept = [pa.chunked_array([plain(c) for c in column.chunks], plain_type(column.type)) for _, column in found]
    if declared == "time":
        return typed(_chunked(kept, pa.string()), declared, where, table.format)
    is_text = [piece.layout is not None and declared is None for piece, _ in found]
    texts = [column for column, of_text in zip(kept, is_text, strict=True) if of_text]
    told, at, parts = typed(_chunked(texts, pa.string()), None, where, table.format), 0, []
    for column, of_text in zip(kept, is_text, strict=True):
        parts.append(told.slice(at, len(column)) if of_text else column)
        at += len(column) if of_text else 0
    if not _lose_integers([part.type for part in parts], parts):
        try:
            return pa.concat_tables([pa.table({name: p}) for p in parts], promote_options="permissive")[name]
        except (pa.ArrowInvalid, pa.ArrowTypeError, IndexError):
            pass
    place = Place(where)
    return pa.chunked_array([to_text(chunk, place) for column in kept for chunk in column.chunks], pa.string())


def _lose_integers(kinds: Sequence[pa.DataType], parts: Sequence[pa.ChunkedArray]) -> bool:
    """Return whether integers of some files would lose digits as the floats of others."""
    if not any(pa.types.is_floating(kind) for kind in kinds):
        return False
    integers = [part for part in parts if pa.types.is_integer(part.type) and len(part) > part.null_count]
    bounds = [abs(value) for part in integers for value in pc.min_max(part).as_py().values()]
    return max(bounds, default=0) > EXACT[64]


def _chunked(columns: Sequence[pa.ChunkedArray], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], kind)


def _missing(location: Location, name: str, known: Sequence[str], key: str = "") -> DataError:
    near = difflib.get_close_matches(name.lower(), [n.lower() for n in known], n=1, cutoff=0.5)
    close = [n for n in known if near and n.lower() == near[0]]
    hint = f"; did you mean {close[0]!r}?" if close else ""
    if len(known) == 1 and (between := [d for d in DELIMITERS if d in known[0]]):
        hint = f"; {between[0]!r} may stand between its values: leave the format's delimiter out, or set it to that"
    wanted = f" ({key})" if key else ""
    shown = ", ".join(known[:40]) + (", ..." if len(known) > 40 else "")
    return DataError(f"{location.name}: no column {name!r}{wanted}; the file has {shown}{hint}")
