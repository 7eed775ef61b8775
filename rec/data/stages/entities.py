"""Users and items from their tables: scanned without their pictures, matched with who records name.

Letters: N rows of a table, U users or items in the order of their indices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from rec.data.ids import id_fault
from rec.data.runner import Runner
from rec.data.schema import EntityTable
from rec.data.tables import Kind, Piece, TableFormat, pieces, read, require, typed
from rec.errors import DataError

PRESENT = "image present"


@dataclass(frozen=True, slots=True)
class ScanTask:
    """Reads what is small of a piece of a table."""

    piece: Piece
    columns: tuple[str, ...]
    image: str | None
    format: TableFormat


@dataclass(slots=True)
class Side:
    """Users or items: where their rows are, what is small of them in memory, and which row is whose."""

    name: str
    """"user" or "item"."""
    pieces: tuple[Piece, ...] = ()
    table: EntityTable | None = None
    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
    """A row per row of the table, with `id`."""
    ids: list[str] = field(default_factory=list)
    """Of those that are kept, in the order of their indices."""
    row_U: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """The row of each in the table, -1 where it is in none."""
    known: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What is small of those that are kept, in the order of their indices."""
    encoded: list[str] = field(default_factory=list)
    """Files with texts and pictures as numbers, one per piece."""

    @property
    def first(self) -> int:
        """Index of the first one: items have padding before them."""
        return 1 if self.name == "item" else 0


def scan_side(
    name: str, table: EntityTable | None, required: Sequence[str], runner: Runner, rows: int, dropped: Counter[str]
) -> tuple[Side, np.ndarray]:
    """Return a table's rows without pictures, and which of them may be kept: with an id, the first of several.

    Raises:
        DataError: the table cannot be read or lacks a column.
    """
    if table is None:
        return Side(name), np.zeros(0, bool)
    require(table.table, {f"data.read: {name}s": table.id, "picture": table.image} | {c: c for c in table.columns})
    _refuse_clashes(name, table)
    parts = pieces(table.table, rows)
    if not parts:
        raise DataError(f"{table.table.name}: no row")
    tasks = [ScanTask(piece, table.columns, table.image, table.table.format) for piece in parts]
    found = pa.concat_tables(runner.map(scan, tasks, f"prepare: read {name}s"), promote_options="permissive")
    frame = _frame(found, table)
    refuse_ids(frame["id"].dropna().tolist(), name, table.table.name)
    good = frame["id"].notna() & ~frame["id"].duplicated()
    dropped[f"{name} twice or without id"] += int((~good).sum())
    for modality in required:
        there = frame[PRESENT] if modality == "image" else _has_text(frame, table.text)
        dropped[f"{name} without {modality}"] += int((good & ~there).sum())
        good &= there
    return Side(name, tuple(parts), table, frame), good.to_numpy(bool)


def refuse_ids(ids: Sequence[str], name: str, where: str) -> None:
    """Check that ids can be named in requests.

    Raises:
        DataError: one cannot.
    """
    for number, text in enumerate(ids):
        if fault := id_fault(text):
            raise DataError(f"{where}: {name} {number + 1:,} of {len(ids):,}: {fault}")


def _refuse_clashes(name: str, table: EntityTable) -> None:
    """Refuse columns whose names we use for something else."""
    taken = {
        "id": table.id,
        name: table.id,
        "title": table.title or "title",
        "group": table.group or "group",
        PRESENT: "",
    }
    for column in table.columns:
        if column in taken and taken[column] != column:
            raise DataError(
                f"{table.table.name}: column {column!r} is read beside {taken[column]!r}, which becomes "
                f"{column!r} of {name}s; leave it out or rename it"
            )


def scan(task: ScanTask) -> pa.Table:
    """Return a piece's columns but its pictures, and which rows have one."""
    wanted = {name: (name, Kind.ANY) for name in task.columns} | {"id": (task.columns[0], Kind.ID)}
    if task.image:
        wanted[PRESENT] = (task.image, Kind.ANY)
    parts = []
    for table in read(task.piece, wanted, task.format, rows_at_once=256):
        if task.image:
            there = pa.array([bool(value) for value in table[PRESENT].to_pylist()])
            table = table.set_column(table.column_names.index(PRESENT), PRESENT, there)
        parts.append(table.drop_columns(["row"]))
    return pa.concat_tables(parts, promote_options="permissive").combine_chunks()


def _frame(table: pa.Table, entity: EntityTable) -> pd.DataFrame:
    """Return the rows of all pieces; attributes that are text are typed from the whole column."""
    for name in entity.attributes:
        column = table[name]
        if pa.types.is_string(column.type):
            format = entity.table.format
            kind = typed(column, format.types.get(name), name, format)
            table = table.set_column(table.column_names.index(name), name, kind)
    return table.to_pandas(integer_object_nulls=True)


def _has_text(frame: pd.DataFrame, names: Sequence[str]) -> Any:
    there = np.zeros(len(frame), bool)
    for name in names:
        there |= frame[name].fillna("").astype(str).str.strip().ne("").to_numpy(bool)
    return pd.Series(there, index=frame.index)


def settle(side: Side, good_N: np.ndarray, ids: Sequence[str]) -> None:
    """Settle who is kept, in this order, and in which good row of the table each is."""
    side.ids, side.row_U = list(ids), np.full(len(ids), -1)
    rows = np.flatnonzero(good_N)
    if len(rows):
        place = pd.Index(side.frame["id"].iloc[rows]).get_indexer(pd.Index(side.ids))
        side.row_U = np.where(place < 0, -1, rows[place])
    found = side.frame.reindex(pd.Index(np.where(side.row_U < 0, len(side.frame), side.row_U)))
    side.known = found.reset_index(drop=True).assign(id=side.ids)


def good_ids(side: Side, good_N: np.ndarray) -> list[str]:
    """Return the ids of the rows that may be kept, in the order of the table."""
    found: list[str] = side.frame["id"].iloc[np.flatnonzero(good_N)].tolist()
    return found
