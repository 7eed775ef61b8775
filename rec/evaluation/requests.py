"""A table of requests, copied into parts so that workers read their own rows, and what tells it from another."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from rec.batch import Column
from rec.config import RunConfig
from rec.data.tables import files, raw_rows
from rec.data.tables.files import locate
from rec.data.tables.raw import RAW_ENDINGS
from rec.json_text import json_text
from rec.storage import Storage, absolute, open_uri
from rec.strict import resolve

FOLDER = "requests"
INDEX = f"{FOLDER}/index.json"
READ_BYTES = 1 << 22


def stamp(table: str) -> dict[str, Any]:
    """Return what tells a table from another, or from what it was: its name and a hash of its bytes.

    Raises:
        DataError: there is no such table.
    """
    digest = hashlib.sha256()
    for path in files(table, RAW_ENDINGS):
        filesystem, inside = open_uri(locate(path, RAW_ENDINGS).uri)
        with filesystem.open_input_file(inside) as file:
            while chunk := file.read(READ_BYTES):
                digest.update(chunk)
    return {"table": absolute(table), "sha256": digest.hexdigest()}


def columns_of(config: RunConfig) -> tuple[Column, ...]:
    """Return what the run's system reads of a row."""
    columns: tuple[Column, ...] = resolve(config.system).columns_for(config.model)
    return columns


def copy(
    table: str, storage: Storage, part_rows: int, columns: Sequence[str], say: Callable[[str], None]
) -> tuple[int, list[str]]:
    """Copy a table's rows into parts, once; return how many there are and which of its columns are not read.

    What a person should know of the table's files is said.
    """
    if storage.exists(INDEX):
        index = storage.read_json(INDEX)
        return index["rows"], index["ignored"]
    ignored: dict[str, None] = {}
    rows = 0
    given = raw_rows(table, say)
    for number in itertools.count():
        part = list(itertools.islice(given, part_rows))
        if not part:
            break
        lines = []
        for values, fault in part:
            ignored |= dict.fromkeys(name for name in values if name not in columns)
            kept = {name: value for name, value in values.items() if name in columns}
            lines.append(json_text([kept, fault], default=_plain))
        storage.write(_file(number), "\n".join(lines).encode())
        rows += len(part)
    storage.write_json(INDEX, {"rows": rows, "ignored": list(ignored)})
    return rows, list(ignored)


def read(storage: Storage, number: int) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Yield the rows of a part as they were written, and what is wrong with each."""
    for line in storage.read(_file(number)).splitlines():
        values, fault = json.loads(line)
        yield values, fault


def _file(number: int) -> str:
    return f"{FOLDER}/part-{number:05d}.jsonl"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return value.isoformat() if isinstance(value, date | datetime | time) else str(value)
