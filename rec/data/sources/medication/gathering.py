"""Codes of visits gathered from tables of any length, in passes whose parts share nothing and fit in memory.

1. scan      every piece of the table gives codes of visits, cut into partitions by visit
2. collect   every partition's codes become one list per visit

What comes back is a row per visit, however many rows the table has.
"""

from __future__ import annotations

import pickle
import zlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rec.data.schema import Workplace
from rec.data.sources.medication.official import Official
from rec.data.stages.records import ROWS_PER_PARTITION, partition
from rec.data.tables import Piece, notes_of, pieces, read
from rec.data.tables.reading import ROW, Wanted
from rec.data.tables.shown import hidden, unshown
from rec.data.writing import write_table
from rec.sections import plural
from rec.storage import Storage

VISIT, CODE, ORDER = "visit", "code", "order"
ROWS_AT_ONCE = 1 << 16
ROWS_HELD = 1 << 18
"""Codes of visits that a task holds before it writes them."""
READ = "rows read"


class Extract(Protocol):
    """Turns rows of a table into codes of visits."""

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, Counter[str]]:
        """Return columns `visit`, `code`, `order` (numbers that sort a visit's codes) and `row`, and what was dropped.

        A table may have several rows of one row that was read.
        """


@dataclass(frozen=True, slots=True)
class Gathered:
    """The codes of visits that a table holds."""

    lists: pa.Table
    """`visit` str and `codes` list<str>, a row per visit."""
    counts: Counter[str]
    """Rows that were read, and what was dropped by reason."""
    frequency: Counter[str]
    """Rows of each code that is kept."""


@dataclass(frozen=True, slots=True)
class GatherTask:
    """Pass 1 for one piece."""

    piece: Piece
    wanted: Wanted
    extract: bytes
    """Compressed: it may hold whole mappings, and travels to every task."""
    root: str
    partitions: int
    number: int
    rows_at_once: int


@dataclass(frozen=True, slots=True)
class CollectTask:
    """Pass 2 for one partition."""

    root: str
    number: int
    allowed: frozenset[str]
    by: str


def gather(
    place: Workplace,
    name: str,
    official: Official,
    wanted: Wanted,
    extract: Extract,
    *,
    most: int = 0,
    allowed: Collection[str] | None = None,
    by: Literal["order", "code"] = "order",
    rows_at_once: int = ROWS_AT_ONCE,
) -> Gathered:
    """Return the codes of every visit that a table names, each once.

    Args:
        place: Where parts lie between the passes, and what runs these.
        name: Of a row, in what is told: "prescription".
        official: The table.
        wanted: What `extract` reads.
        extract: Turns rows into codes.
        most: The codes with the most rows that are kept; 0 keeps all.
        allowed: Codes that may be kept; None allows all.
        by: What a visit's codes are sorted by: their first `order`, or themselves.
        rows_at_once: Rows that a task reads at once; few where they are long.
    """
    root = place.storage.below(f"gathered-{name}").uri_of("")
    with hidden():
        parts = pieces(official.table)
    for note in notes_of(parts):
        place.say(note)
    partitions = max(1, -(-sum(piece.rows for piece in parts) // ROWS_PER_PARTITION))
    packed = zlib.compress(pickle.dumps(extract), 1)
    tasks = [GatherTask(piece, wanted, packed, root, partitions, n, rows_at_once) for n, piece in enumerate(parts)]
    counts, frequency = Counter[str](), Counter[str]()
    for dropped, found in place.runner.map(scan_piece, tasks, f"prepare: {plural(name)}"):
        counts += dropped
        frequency += found
    kept = frozenset(_most_frequent(frequency, most))
    rare = Counter({code: rows for code, rows in frequency.items() if code not in kept})
    bare = Counter({code: frequency[code] for code in kept if allowed is not None and code not in allowed})
    counts += Counter({f"{name} of a code too rare": rare.total(), f"{name} of a code without molecule": bare.total()})
    last = [CollectTask(root, n, kept - bare.keys(), by) for n in range(partitions)]
    lists = place.runner.map(collect_partition, last, f"prepare: {plural(name)} of visits")
    place.storage.delete(f"gathered-{name}")
    return Gathered(pa.concat_tables(lists), counts, frequency - rare - bare)


def scan_piece(task: GatherTask) -> tuple[Counter[str], Counter[str]]:
    """Write the codes of a piece into partitions; return what was read and dropped, and the rows of each code."""
    extract: Extract = pickle.loads(zlib.decompress(task.extract))
    counts, frequency = Counter[str](), Counter[str]()
    held: list[pa.Table] = []
    written = 0
    for rows in unshown(read(task.piece, task.wanted, rows_at_once=task.rows_at_once)):
        found, dropped = extract(rows)
        counts += dropped
        counts[READ] += len(rows)
        for entry in pc.value_counts(found[CODE].combine_chunks()).to_pylist():
            frequency[entry["values"]] += entry["counts"]
        number = (task.number << 40) + found[ROW].to_numpy()
        held.append(found.set_column(found.column_names.index(ROW), ROW, pa.array(number, pa.int64())))
        if sum(map(len, held)) >= ROWS_HELD:
            _write(task, held, written)
            held, written = [], written + 1
    if held:
        _write(task, held, written)
    return counts, frequency


def collect_partition(task: CollectTask) -> pa.Table:
    """Return the visits of a partition with a list of codes each."""
    storage = Storage(task.root)
    tables = []
    for name in storage.list(f"{task.number:05d}"):
        with storage.open(f"{task.number:05d}/{name}") as file:
            tables.append(pq.read_table(file))
    if not tables:
        return as_lists(pa.table({VISIT: pa.array([], pa.string()), CODE: pa.array([], pa.string())}))
    table = distinct(pa.concat_tables(tables))
    table = table.filter(pc.is_in(table[CODE], pa.array(sorted(task.allowed), pa.string())))
    keys = [(VISIT, "ascending"), (CODE if task.by == "code" else ORDER, "ascending"), (ROW, "ascending")]
    return as_lists(table.sort_by(keys))


def distinct(table: pa.Table) -> pa.Table:
    """Return the first row, by order and place, of every code of a visit."""
    if not len(table):
        return table
    visit, code = (table[name].combine_chunks().dictionary_encode() for name in (VISIT, CODE))
    pair = visit.indices.to_numpy().astype(np.int64) * len(code.dictionary) + code.indices.to_numpy()
    order = np.lexsort((table[ROW].to_numpy(), table[ORDER].to_numpy()))
    _, first = np.unique(pair[order], return_index=True)
    return table.take(pa.array(np.sort(order[first])))


def as_lists(table: pa.Table) -> pa.Table:
    """Return codes, sorted by visit, as a list per visit."""
    run = table[VISIT].combine_chunks().dictionary_encode()
    start = np.searchsorted(run.indices.to_numpy(), np.arange(len(run.dictionary) + 1))
    codes = pa.ListArray.from_arrays(pa.array(start, pa.int32()), table[CODE].combine_chunks())
    return pa.table({VISIT: run.dictionary, "codes": codes})


def codes_of(visit: pa.Array, code: pa.Array, order: pa.Array, row: pa.Array) -> pa.Table:
    """Return what an `Extract` returns; an unknown order comes last."""
    order = pc.fill_null(order.cast(pa.float64()), np.inf)
    return pa.table({VISIT: visit, CODE: code.cast(pa.string()), ORDER: order, ROW: row})


def filtered(rows: pa.Table, mask: pa.Array, reason: str, dropped: Counter[str]) -> pa.Table:
    """Return the rows where a mask is true, and count the others."""
    kept = rows.filter(pc.fill_null(mask, False))
    dropped[reason] += len(rows) - len(kept)
    return kept


def _write(task: GatherTask, held: list[pa.Table], written: int) -> None:
    storage = Storage(task.root)
    for number, part in enumerate(partition(distinct(pa.concat_tables(held)), task.partitions, by=VISIT)):
        if len(part):
            write_table(storage, f"{number:05d}/{task.number:05d}-{written:05d}.parquet", part)


def _most_frequent(frequency: Counter[str], most: int) -> list[str]:
    """Return the codes with the most rows, ties by code; all where `most` is 0."""
    ordered = sorted(frequency, key=lambda code: (-frequency[code], code))
    return ordered[:most] if most else ordered
