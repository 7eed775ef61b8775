"""What is known of the users or items that reviews name: titles, texts, vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.ids import sorted_ids
from rec.data.schema import Workplace
from rec.data.tables import ForeignTable, Kind, notes_of, pieces, read
from rec.data.writing import write_array
from rec.errors import DataError
from rec.storage import absolute

ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class MemberTable:
    """A table of some members, in the order of their ids, and their vectors."""

    table: pa.Table
    """id, and title and text where they are known."""
    features: Mapping[str, str]
    """Files of vectors, a row per row of `table`; zeros where none are known."""


def known_of(
    place: Workplace,
    named: pa.ChunkedArray,
    table: ForeignTable,
    columns: Mapping[str, tuple[str, ...]],
    vectors: Mapping[str, str],
    what: str,
) -> MemberTable:
    """Return what a table knows of the members that reviews name; others of it are not kept in memory.

    Args:
        place: Where vectors are written.
        named: Raw ids, repeated ones too.
        table: A row per member, the first of several counts.
        columns: The table's columns of `id`, `title` and `text`; several are joined by ". ".
        vectors: Files of vectors by name: .npy, a row per row of the table.
        what: "item" or "user", in messages.

    Raises:
        DataError: a file cannot be read or does not fit, or the table knows nobody who is named.
    """
    ids = pa.array(sorted_ids(pc.unique(named).drop_null().to_pylist()), pa.string())
    wanted = {"id": (columns["id"][0], Kind.ID)}
    joined = {ours: [f"{ours} {n}" for n, _ in enumerate(theirs)] for ours, theirs in columns.items() if ours != "id"}
    for ours, names in joined.items():
        wanted |= {name: (theirs, Kind.TEXT) for name, theirs in zip(names, columns[ours], strict=True)}
    parts, rows = [], 0
    of_table = pieces(table)
    for note in notes_of(of_table):
        place.say(note)
    for piece in of_table:
        for part in read(piece, wanted, table.format, rows_at_once=ROWS_AT_ONCE):
            place_of = pa.array(np.arange(rows, rows + len(part)), pa.int64())
            rows += len(part)
            part = part.set_column(part.column_names.index("row"), "row", place_of)
            parts.append(part.filter(pc.is_in(part["id"], value_set=ids)))
    found = pa.concat_tables(parts) if parts else None
    if found is None or not len(found):
        raise DataError(f"{table.name}: none of {rows:,} {what}s is one of {len(ids):,} that reviews name")
    at = pc.index_in(ids, value_set=found["id"].combine_chunks())
    row = pc.fill_null(found["row"].take(at), -1).to_numpy()
    if missing := int((row < 0).sum()):
        place.say(f"{what}s: {missing:,} of {len(ids):,} are in no row of {table.name}")
    texts = {ours: _joined(found.take(at), names) for ours, names in joined.items() if names}
    features = {name: _taken(place, f"{what}_{name}", path, rows, row) for name, path in sorted(vectors.items())}
    return MemberTable(pa.table({"id": ids, **texts}), features)


def _joined(table: pa.Table, names: list[str]) -> pa.ChunkedArray:
    columns = [table[name] for name in names]
    return pc.binary_join_element_wise(*columns, ". ", null_handling="skip") if len(columns) > 1 else columns[0]


def _taken(place: Workplace, name: str, path: str, rows: int, row: np.ndarray) -> str:
    path = absolute(path)
    try:
        vectors = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"data.read: vectors: {path}: cannot be read ({error})") from error
    if vectors.ndim != 2 or len(vectors) != rows:
        raise DataError(f"{path}: shape {vectors.shape}, expected a row for each of {rows:,} rows of the table")
    taken = np.where((row < 0)[:, None], 0, vectors[np.maximum(row, 0)]).astype(np.float32)
    write_array(place.storage, name, taken)
    return place.storage.uri_of(f"{name}.npy")
