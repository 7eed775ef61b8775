"""Files of one JSON object per line, packed or not, to Parquet files of the columns that are wanted.

A layout says under which names its files keep what; which one a file has is told by its first object. Lines are read by
pyarrow; a block of them that it cannot read, such as one with lists where others have texts, is read by Python.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from rec.data.schema import Workplace
from rec.data.tables import ForeignTable, TableFormat
from rec.data.tables.files import UNREADABLE, Location, files, locate, opened
from rec.data.writing import write_table
from rec.errors import DataError
from rec.json_text import json_text
from rec.sections import counted
from rec.storage import Storage

ENDINGS = (".json", ".jsonl")
BLOCK_BYTES = 1 << 24
"""Bytes, unpacked, that are read at a time: a Parquet file of their own."""
LONGEST_SHOWN = 60
REPLACEMENT = "\ufffd"
"""Stands for bytes that are not UTF-8."""


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Names under which a kind of file keeps what is read, ours first."""

    name: str
    columns: Mapping[str, tuple[str, pa.DataType]]
    """By our names: theirs, which every object has, and string, float64, int64 or list of strings, which is joined."""
    others: Mapping[str, tuple[str, pa.DataType]] = field(default_factory=dict)
    """The same of what may be missing."""
    time_unit: str = ""
    """Of times that are numbers."""

    @property
    def all(self) -> dict[str, tuple[str, pa.DataType]]:
        """Every column by our name."""
        return {**self.columns, **self.others}


@dataclass(frozen=True, slots=True)
class LinesTask:
    """One file to read."""

    location: Location
    number: int
    layout: FieldNames
    root: str
    folder: str


def table_of_lines(place: Workplace, paths: Sequence[str], layouts: Sequence[FieldNames], folder: str) -> ForeignTable:
    """Read files of JSON lines to Parquet and return them as one table, of text columns by our names.

    Args:
        place: Where the table is written, and what works: one task per file.
        paths: Files, packed or not, or folders of them.
        layouts: What they may look like.
        folder: Name of the table.

    Raises:
        DataError: a file cannot be read, is of no such layout, or files are of several.
    """
    locations = [locate(path, ENDINGS) for uri in paths for path in files(uri, ENDINGS)]
    found = [_layout(location, layouts) for location in locations]
    for location, layout in zip(locations, found, strict=True):
        if layout is not found[0]:
            raise DataError(f"{location.name}: of {layout.name}, but {locations[0].name} is of {found[0].name}")
    root = place.storage.uri_of("")
    tasks = [LinesTask(location, n, found[0], root, folder) for n, location in enumerate(locations)]
    read = place.runner.map(read_lines, tasks, f"prepare: read {folder}")
    if not any(one.rows for one in read):
        raise DataError(f"{', '.join(paths)}: no line")
    origins = {}
    for task, one in zip(tasks, read, strict=True):
        if one.damaged:
            lines = counted(one.damaged, "line")
            place.say(f"{task.location.name}: {lines} with bytes that are not UTF-8, read as {REPLACEMENT!r}")
        for block, before in enumerate(one.before):
            origins[place.storage.uri_of(_file(task, block))] = task.location.name, before
    format = TableFormat.model_validate({"time_unit": found[0].time_unit})
    return ForeignTable((place.storage.uri_of(folder),), format, origins=origins)


def _layout(location: Location, layouts: Sequence[FieldNames]) -> FieldNames:
    first = next(_blocks(location, 1 << 12), b"")
    row = _parsed(first.split(b"\n", 1)[0], location, 1)
    for layout in layouts:
        if all(theirs in row for theirs, _ in layout.columns.values()):
            return layout
    expected = "; ".join(
        f"{layout.name}: {', '.join(name for name, _ in layout.columns.values())}" for layout in layouts
    )
    raise DataError(f"{location.name}: line 1 has the names {', '.join(row) or 'none'}, expected those of {expected}")


@dataclass(frozen=True, slots=True)
class LinesRead:
    """What was read of a file."""

    rows: int
    before: tuple[int, ...]
    """Of each block: the lines that come before it."""
    damaged: int
    """Lines with bytes that are not UTF-8."""


def read_lines(task: LinesTask) -> LinesRead:
    """Write a file's rows, block by block; return how many there are."""
    rows, before, damaged = 0, [], 0
    for number, block in enumerate(_blocks(task.location, BLOCK_BYTES)):
        before.append(rows)
        block, replaced = _as_utf8(block)
        damaged += replaced
        table = _table(block, task, rows)
        rows += block.count(b"\n") + (not block.endswith(b"\n"))
        write_table(Storage(task.root), _file(task, number), table)
    return LinesRead(rows, tuple(before), damaged)


def _file(task: LinesTask, block: int) -> str:
    return f"{task.folder}/{task.number:05d}-{block:06d}.parquet"


def _as_utf8(block: bytes) -> tuple[bytes, int]:
    """Return lines in which what is not UTF-8 is replaced, and in how many of them something was."""
    try:
        block.decode()
    except UnicodeDecodeError:
        lines = block.split(b"\n")
        whole = [line.decode("utf-8", "replace").encode() for line in lines]
        return b"\n".join(whole), sum(one != other for one, other in zip(lines, whole, strict=True))
    return block, 0


def _blocks(location: Location, size: int) -> Iterator[bytes]:
    """Yield whole lines of a file."""
    held, lines = b"", 0
    try:
        with opened(location) as file:
            while chunk := file.read(size):
                end = chunk.rfind(b"\n") + 1
                if end:
                    lines += chunk.count(b"\n")
                    yield held + chunk[:end]
                held = chunk[end:] if end else held + chunk
    except UNREADABLE as error:
        raise DataError(
            f"{location.name}: cannot be read after line {lines:,} ({error}); was it downloaded to its end?"
        ) from error
    if held.strip():
        yield held


def _table(block: bytes, task: LinesTask, before: int) -> pa.Table:
    """Return the wanted columns of some lines as text; what pyarrow does not read is read line by line."""
    names = task.layout.all
    try:
        schema = pa.schema(list(dict.fromkeys(names.values())))
        table = pyarrow.json.read_json(
            pa.BufferReader(block),
            pyarrow.json.ReadOptions(block_size=len(block) + 1),
            pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        found = {ours: table[theirs] for ours, (theirs, _) in names.items()}
        return pa.table(
            {n: pc.binary_join(c, " ") if pa.types.is_list(c.type) else c for n, c in found.items()}
        ).combine_chunks()
    except pa.ArrowInvalid:
        rows = [
            _parsed(line, task.location, before + number)
            for number, line in enumerate(block.split(b"\n"), 1)
            if line.strip()
        ]
        found = {}
        for ours, (theirs, kind) in names.items():
            kind = pa.string() if pa.types.is_list(kind) else kind
            values = [_value(row.get(theirs), kind, theirs, task, before + n) for n, row in enumerate(rows, 1)]
            found[ours] = pa.array(values, kind)
        return pa.table(found)


def _parsed(line: bytes, location: Location, number: int) -> dict[str, Any]:
    """Return the object of a line: JSON, or as the oldest of Amazon's files have it, a literal of Python."""
    text = line.decode("utf-8-sig", "replace")
    try:
        row = json.loads(text)
    except ValueError as error:
        try:
            row = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            shown = text[:LONGEST_SHOWN]
            raise DataError(f"{location.name}: line {number:,}: not JSON ({error}): {shown!r}") from None
    except RecursionError:
        raise DataError(f"{location.name}: line {number:,}: not JSON (too deep)") from None
    if not isinstance(row, dict):
        raise DataError(f"{location.name}: line {number:,}: a {type(row).__name__}, expected an object")
    return row


def _value(value: Any, kind: pa.DataType, name: str, task: LinesTask, number: int) -> Any:
    if pa.types.is_string(kind):
        return _text(value)
    try:
        return None if value in (None, "") else int(value) if pa.types.is_integer(kind) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"{task.location.name}: line {number:,}: {name!r}: found {value!r}, expected a number"
        ) from None


def _text(value: Any) -> str | None:
    """Return a value as text: lists joined by blanks, nothing for what is empty."""
    if value is None or value == [] or value == {}:
        return None
    if isinstance(value, list | tuple):
        return " ".join(filter(None, map(_text, value)))
    text = value if isinstance(value, str) else json_text(value) if isinstance(value, dict | bool) else repr(value)
    return text.encode("utf-8", "replace").decode()
