"""Rows of tables of requests: values as they are written, and what is wrong with a row beside it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

from rec.data.table_format import TableFormat
from rec.data.tables import parquet, text
from rec.data.tables.files import UNREADABLE, Location, files, locate, opened
from rec.data.tables.layout import complete, layout
from rec.errors import DataError
from rec.sections import counted

RAW_ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl")
ROWS_AT_ONCE = 256


def raw_rows(uri: str, say: Callable[[str], None] = lambda _: None) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Yield every row of Parquet, text or JSON lines as it is written, and what is wrong with it.

    Values of text files are text as it stands in the file, so that an id like 007 is one. Where some are not UTF-8 and
    read as cp1252, that is said.

    Raises:
        DataError: a file cannot be read at all.
    """
    for path in files(uri, RAW_ENDINGS):
        location = locate(path, RAW_ENDINGS)
        if location.form == "parquet":
            for stretch in parquet.stretches(location, 1 << 20):
                for _, batch in parquet.batches(location, stretch, parquet.names(location), ROWS_AT_ONCE):
                    yield from ((row, None) for row in batch.to_pylist())
        elif ".jsonl" in location.name.rsplit("/", 1)[-1].lower():
            yield from _json_rows(location)
        else:
            yield from _text_rows(location, say)


def _text_rows(location: Location, say: Callable[[str], None]) -> Iterator[tuple[dict[str, Any], str | None]]:
    known = complete(layout(location, TableFormat()), location)
    if known.note:
        say(f"{location.name}: {known.note}")
    head = known.names
    for row in text.raw(location, known):
        wrong = len(row) != len(head)
        fault = f"{counted(len(row), 'value')}, expected {len(head)}: {', '.join(head)}" if wrong else None
        yield dict(zip(head, row, strict=False)), fault


def _json_rows(location: Location) -> Iterator[tuple[dict[str, Any], str | None]]:
    try:
        with (
            opened(location) as file,
            io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="") as lines,
        ):
            for line in filter(str.strip, lines):
                yield _json_row(line)
    except UNREADABLE as error:
        raise DataError(f"{location.name}: cannot be read ({error})") from error


def _json_row(line: str) -> tuple[dict[str, Any], str | None]:
    try:
        line.encode()
        row = json.loads(line)
    except UnicodeEncodeError:
        return {}, "not UTF-8"
    except (ValueError, RecursionError) as error:
        return {}, f"not JSON ({error})"
    return (row, None) if isinstance(row, dict) else ({}, f"a {type(row).__name__}, expected an object")
