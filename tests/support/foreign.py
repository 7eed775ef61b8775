"""Foreign tables to test with: written here, read by `rec.data.tables`."""

import bz2
import datetime
import gzip
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from rec.data.tables import (
    ForeignTable,
    Kind,
    TableFormat,
    read_whole,
)

INTEGERS = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
NOON = datetime.datetime(2023, 11, 14, 22, 13, 20)
NOON_S = 1_700_000_000
NO_SURROGATES = st.characters(exclude_categories=["Cs"])
SPECIAL = st.sampled_from(
    ["\n", "\r", "\r\n", '"', '""', ",", ";", "|", "\t", "::", ":", "\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c",
     "\x1d", "\x1e", "\x1f", "\x00", "\x01", "NA", "null", "007", "1e5", " ", "é", "\ufeff", "😀", "a", "1"]
)  # fmt: skip
VALUE = st.lists(st.one_of(SPECIAL, st.text(NO_SURROGATES, max_size=2)), max_size=4).map("".join)
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
slow_to_draw = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def written(rows: Sequence[Sequence[str]], delimiter: str, end: str, quote: Sequence[bool]) -> str:
    """Return rows as text: values are in quotes where they must be, and where `quote` says so."""
    lines, number = [], 0
    for row in rows:
        cells = []
        for value in row:
            number += 1
            alone = value == "" and len(row) == 1
            bare = alone or quote[number % len(quote)] or any(c in value for c in f'"\r\n{delimiter}')
            cells.append('"' + value.replace('"', '""') + '"' if bare else value)
        lines.append(delimiter.join(cells) + end)
    return "".join(lines)


def a_table(path: Path, body: str | bytes, **format: Any) -> ForeignTable:
    path.write_bytes(body if isinstance(body, bytes) else body.encode("utf-8", "surrogateescape"))
    return ForeignTable((str(path),), TableFormat(**format))


def a_column(path: Path, values: Any) -> ForeignTable:
    """A Parquet table with one column, `x`."""
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    pq.write_table(pa.table({"x": array}), path)
    return ForeignTable((str(path),))


def values(table: ForeignTable, kind: Kind, name: str = "x") -> list[Any]:
    return read_whole(table, {"ours": (name, kind)})["ours"].to_pylist()
