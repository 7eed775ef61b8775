"""Rows of text files, value by value as they are written."""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rec.data.tables.files import UNREADABLE, Location, RowRange, opened, together
from rec.data.tables.layout import MAXIMUM_CHARACTERS, TextLayout, iter_bytes, text_of
from rec.data.tables.shown import HIDDEN, is_hidden, shown
from rec.data.tables.stream import CHUNK_BYTES, binary_chunks, rows_together, swapped
from rec.data.tables.values import Place, utf8
from rec.errors import DataError

RAGGED = re.compile(r"Row #(\d+): Expected \d+ columns, got (\d+): (.*)", re.DOTALL)
ALL = RowRange(0, sys.maxsize)


def stretches(location: Location, layout: TextLayout, rows: int, size: int = CHUNK_BYTES) -> list[RowRange]:
    """Return a file's rows in stretches of about `rows`, all in one where a part cannot be read alone.

    That is so where the file is packed, in another encoding than UTF-8, or has bytes swapped while it is parsed.

    Raises:
        DataError: a row has too few or too many values.
    """
    alone = not (location.form or location.member or layout.swaps) and layout.encoding in ("", "utf-8")
    parts: list[RowRange] = []
    start, first = layout.mark, 0
    for chunk in _chunks(location, layout, size):
        header = int(layout.header and first == 0 and not parts)
        found = sum(map(len, _parsed(chunk, location, layout, (), first - header)))
        end = start + len(chunk)
        if found:
            parts.append(RowRange(first, found - header, span=(start, end)))
            first += found - header
            start = end
    if alone:
        return together((part for part in parts if part.rows), rows)
    return [RowRange(0, first)] if first else []


def batches(
    location: Location, layout: TextLayout, wanted: Sequence[str], stretch: RowRange = ALL, size: int = CHUNK_BYTES
) -> Iterator[tuple[int, dict[str, pa.Array]]]:
    """Yield the row number of a batch's first row and its wanted columns as text, null where a value is empty.

    Without a wanted column the first is yielded under "", as bytes.

    Raises:
        DataError: a row has too few or too many values, or a wanted one is no text.
    """
    at, end = stretch.first - stretch.skipped, stretch.first + stretch.rows
    header = int(layout.header and (stretch.span is None or stretch.span[0] == layout.mark))
    for chunk in _chunks(location, layout, size, stretch.span):
        for batch in _parsed(chunk, location, layout, wanted, at - header):
            rows = batch.slice(header)
            start, stop = max(stretch.first - at, 0), min(end - at, len(rows))
            if start < stop:
                yield at + start, _columns(location, layout, wanted, rows.slice(start, stop - start), at + start)
            at += len(rows)
            header = 0
            if at >= end:
                return


def raw(location: Location, layout: TextLayout) -> Iterator[list[str]]:
    """Yield the rows that are not blank, whatever their number of values, without the header."""
    csv.field_size_limit(MAXIMUM_CHARACTERS)
    skipped = int(layout.header)
    for chunk in _chunks(location, layout, CHUNK_BYTES):
        text = io.StringIO(chunk.decode("utf-8", "surrogateescape"), newline="")
        try:
            for row in filter(None, csv.reader(text, delimiter=layout.separator)):
                if not skipped:
                    yield [text_of(_restored(value, layout)) for value in row]
                skipped = 0
        except csv.Error as error:
            raise DataError(f"{location.name}: cannot be read ({error})") from error


def lines(location: Location, fallback: str) -> list[str]:
    """Return the lines of a small file that are not blank, in `fallback` where they are not UTF-8.

    Lines end in a line feed and nothing else: a text may hold whatever else Python takes for the end of one.
    """
    try:
        with opened(location) as file:
            data = b"".join(iter_bytes(file)).removeprefix(codecs.BOM_UTF8)
    except UNREADABLE as error:
        raise DataError(f"{location.name}: cannot be read ({error})") from error
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode(fallback)
    return [line for line in re.split(r"\r?\n", text) if line.strip()]


def _chunks(location: Location, layout: TextLayout, size: int, span: tuple[int, int] | None = None) -> Iterator[bytes]:
    """Yield a file's rows as UTF-8, some at a time, with what must be swapped."""
    end = b"\r" if layout.carriage else b"\n"
    try:
        with opened(location) as file:
            if span is None:
                file.read(layout.mark)
                chunks = swapped(binary_chunks(iter_bytes(file, size=size), layout.encoding), layout.swaps)
            else:
                file.seek(span[0])
                chunks = iter_bytes(file, span[1] - span[0], size)
            yield from rows_together(chunks, layout.separator, end, size)
    except UnicodeError as error:
        raise DataError(f"{location.name}: not {layout.encoding} ({error})") from error
    except (*UNREADABLE, ValueError) as error:
        raise DataError(f"{location.name}: cannot be read ({error})") from error


def _parsed(
    chunk: bytes, location: Location, layout: TextLayout, wanted: Sequence[str], first: int
) -> list[pa.RecordBatch]:
    """Return the wanted columns of a chunk, named by their position, as bytes."""
    names = [str(number) for number in range(len(layout.names))]
    if chunk.startswith(codecs.BOM_UTF8):  # pyarrow takes one away, and here it is a character
        chunk = codecs.BOM_UTF8 + chunk
    include = [names[layout.names.index(name)] for name in dict.fromkeys(wanted)] or names[:1]
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(chunk),
            read_options=pa.csv.ReadOptions(column_names=names, block_size=len(chunk) + 1, use_threads=False),
            parse_options=pa.csv.ParseOptions(delimiter=layout.separator, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                include_columns=include,
                column_types=dict.fromkeys(include, pa.binary()),
                strings_can_be_null=True,
                null_values=[""],
                check_utf8=False,
            ),
        )
    except pa.ArrowInvalid as error:
        if not chunk.strip():
            return []
        raise _unparsed(location, layout, str(error), first) from error
    return table.to_batches()


def _columns(
    location: Location, layout: TextLayout, wanted: Sequence[str], batch: pa.RecordBatch, first: int
) -> dict[str, pa.Array]:
    """Return the columns as text under their names."""
    if not wanted:
        return {"": batch.column(0)}
    columns = {}
    for name in wanted:
        array = batch.column(str(layout.names.index(name)))
        if layout.restores:
            for written, spare in layout.swaps:
                array = pc.replace_substring(array, spare, written)
        columns[name] = utf8(array, Place(location.name, name, first), layout.encoding)
    return columns


def _restored(value: str, layout: TextLayout) -> str:
    for written, spare in layout.swaps:
        value = value.replace(spare.decode(), written.decode())
    return value


def _unparsed(location: Location, layout: TextLayout, error: str, first: int) -> DataError:
    """Return the error of a chunk that pyarrow does not parse; only its message has the row."""
    ragged = RAGGED.search(error)
    if ragged is None:
        told = HIDDEN if is_hidden() else error
        return DataError(f"{location.name}: row {first + 1} or one after it: {told}")
    row_text = shown(_restored(ragged[3], layout), 62)
    names, row = layout.names, first + int(ragged[1])
    expected = f"{len(names)}: {', '.join(names)}"
    return DataError(f"{location.name}: row {row}: found {ragged[2]} values ({row_text}), expected {expected}")
