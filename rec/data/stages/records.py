"""Records from foreign tables to numbers, in passes whose parts share nothing and fit in memory.

1. read      every piece of the input is cleaned, counted and cut into partitions by user
2. group     every partition's records get item and user indices, in the order of (user, time, row)

Letters: E records.
"""

from __future__ import annotations

import itertools
import pickle
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rec.data.config import FilterConfig
from rec.data.ids import sorted_ids
from rec.data.runner import Runner
from rec.data.schema import PART, RATING, TIME, RecordTable
from rec.data.stages.drops import in_words, least_in_words
from rec.data.tables import Piece, TableFormat, TimeForm, notes_of, pieces, read, time_form
from rec.data.tables.reading import Wanted
from rec.data.writing import write_table
from rec.errors import ConfigError, DataError
from rec.storage import Storage

ROWS_PER_PARTITION = ROWS_PER_PIECE = 1 << 20
FOLDER = "records"


@dataclass(frozen=True, slots=True)
class ReadTask:
    """Pass 1 for one piece of the input."""

    piece: Piece
    wanted: Wanted
    format: TableFormat
    times: Mapping[str, TimeForm]
    number: int
    root: str
    partitions: int
    minimum_rating: float | None


@dataclass(frozen=True, slots=True)
class GroupTask:
    """Pass 2 for one partition."""

    root: str
    partition: int
    items: bytes
    """Compressed vocabulary: what travels to every task stays small."""
    users: bytes
    """All users in the order of their table, None where records alone name them."""
    once: bool
    minimum_user_count: int


@dataclass(frozen=True, slots=True)
class Records:
    """All records as numbers, sorted by user, then by time and row."""

    user_E: np.ndarray
    item_E: np.ndarray
    """From 1."""
    row_E: np.ndarray
    """Where each stood in the input."""
    columns: dict[str, np.ndarray]
    """Time, rating and part, where the source has them."""
    form: TimeForm | None = None
    """What times are."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.user_E)

    def take(self, chosen: np.ndarray) -> Records:
        """Return some records, by mask or places."""
        columns = {name: value[chosen] for name, value in self.columns.items()}
        return Records(self.user_E[chosen], self.item_E[chosen], self.row_E[chosen], columns, self.form)


@dataclass(slots=True)
class IdVocabulary:
    """The ids of users and items, in the order of their indices."""

    users: list[str]
    items: list[str]
    dropped: Counter[str] = field(default_factory=Counter)
    read: int = 0
    """Rows of the input."""
    notes: tuple[str, ...] = ()
    """What people should know of the files."""


def read_records(
    table: RecordTable,
    known: dict[str, list[str]],
    only: Sequence[str] | None,
    keys: FilterConfig,
    least: int,
    once: bool,
    root: str,
    runner: Runner,
) -> tuple[Records, IdVocabulary]:
    """Return the records of a source that are kept, and who they are of.

    Args:
        table: Where they are.
        known: Ids of the entities that are kept though no record names them; others in records are unknown.
        only: Items that may be kept; None where all may.
        keys: What is kept.
        least: Records of a user at least.
        once: Whether a user and an item meet once at most.
        root: A folder for what lies between the passes.
        runner: What runs the passes.

    Raises:
        ConfigError: items with few records are to be dropped, and all are to be kept.
        DataError: an input cannot be read, too many records name nobody, or none is left.
    """
    if known.get("item") and keys.minimum_item_count:
        raise ConfigError(
            "data.filter.minimum_item_count: has no effect where every item of a table is kept; use data.filter.core, "
            'or set data.filter.unseen without "item"'
        )
    wanted, format, parts = table.columns, table.table.format, pieces(table.table, ROWS_PER_PIECE)
    if not parts:
        raise DataError(f"{table.table.name}: holds no row, expected a row per record")
    times = {} if table.time is None else {TIME: time_form(table.table, table.time, parts)}
    partitions = max(1, -(-sum(piece.rows for piece in parts) // ROWS_PER_PARTITION))
    tasks = [ReadTask(p, wanted, format, times, n, root, partitions, keys.minimum_rating) for n, p in enumerate(parts)]
    reads = runner.map(read_piece, tasks, "prepare: read")
    dropped: Counter[str] = sum((r[1] for r in reads), Counter())
    total, where = sum(r[0] for r in reads), table.table.name
    items = known.get("item") or frequent([r[2] for r in reads], keys.minimum_item_count, only)
    users = known.get("user")
    if not items or total == sum(dropped.values()):
        raise _nothing_left(where, total, dropped)
    packed = [zlib.compress(pickle.dumps(names), 1) for names in (items, users)]
    grouped = [GroupTask(root, p, packed[0], packed[1], once, least) for p in range(partitions)]
    groups = runner.map(group_partition, grouped, "prepare: group")
    unknown = [sum((g[2][name] for g in groups), Counter()) for name in ("user", "item")]
    _refuse_unknown(known, unknown, total, keys, where)
    dropped = sum((g[1] for g in groups), dropped)
    for name, lost in zip(("user", "item"), unknown, strict=True):
        reason = f"record of an unknown {name}" if name in known else f"record of an {name} too rare or left out"
        dropped[reason] += sum(lost.values())
    names = users if users is not None else list(itertools.chain.from_iterable(g[0] for g in groups))
    records = gathered(root, [len(g[0]) for g in groups], users is not None)
    records = replace(records, form=times.get(TIME))
    if not len(records):
        raise _nothing_left(where, total, dropped, least if not keys.minimum_user_count else 0)
    return records, IdVocabulary(names, items, dropped, total, tuple(notes_of(parts)))


def read_piece(task: ReadTask) -> tuple[int, Counter[str], tuple[list[str], np.ndarray]]:
    """Write a piece's usable rows into partitions; return rows read, drops, and item counts."""
    storage = Storage(task.root)
    dropped: Counter[str] = Counter()
    counts: list[pd.Series[int]] = []
    rows = 0
    for block, table in enumerate(
        read(task.piece, task.wanted, task.format, rows_at_once=ROWS_PER_PIECE, times=task.times)
    ):
        order = (task.number << 40) + table["row"].to_numpy()
        rows += len(table)
        table = table.set_column(table.column_names.index("row"), "row", pa.array(order, pa.int64()))
        kept, reasons = clean(table, task.minimum_rating)
        dropped += reasons
        if not len(kept):
            continue
        values = kept["item"].value_counts()
        counts.append(pd.Series(values.field("counts").to_numpy(), values.field("values").to_pylist()))
        for number, part in enumerate(partition(kept, task.partitions)):
            if len(part):
                write_table(storage, f"{FOLDER}/{number:05d}/{task.number:05d}-{block:05d}.parquet", part)
    total = pd.concat(counts).groupby(level=0).sum() if counts else pd.Series(dtype=np.int64)
    return rows, dropped, ([str(i) for i in total.index], total.to_numpy(np.int64))


def clean(table: pa.Table, minimum_rating: float | None) -> tuple[pa.Table, Counter[str]]:
    """Return the rows that can be used, and how many were dropped for which reason."""
    dropped: Counter[str] = Counter()
    keep = np.ones(len(table), dtype=bool)
    for name in table.column_names:
        valid = pc.is_valid(table[name])
        if pa.types.is_floating(table[name].type):
            valid = pc.and_kleene(valid, pc.is_finite(table[name]))
        mask = pc.fill_null(valid, False).to_numpy().astype(bool)
        dropped[f"record without {name}"] += int((keep & ~mask).sum())
        keep &= mask
    if minimum_rating is not None and RATING in table.column_names:
        high = table[RATING].to_numpy() >= minimum_rating
        dropped[f"record with a rating below {minimum_rating:g}"] += int((keep & ~high).sum())
        keep &= high
    return table.filter(pa.array(keep)), dropped


def partition(table: pa.Table, count: int, by: str = "user") -> list[pa.Table]:
    """Return `count` tables that share no value of a column; the rows of one stay in order."""
    if count == 1:
        return [table]
    users = table[by].combine_chunks().dictionary_encode()
    hashes = pd.util.hash_array(users.dictionary.to_numpy(zero_copy_only=False).astype(object))
    part = (hashes % count).astype(np.int64)[users.indices.to_numpy()]
    order = np.argsort(part, kind="stable")
    bounds = np.searchsorted(part[order], np.arange(count + 1))
    ordered = table.take(pa.array(order))
    return [ordered.slice(a, b - a) for a, b in itertools.pairwise(bounds)]


def frequent(
    counts: Sequence[tuple[list[str], np.ndarray]], minimum: int, only: Sequence[str] | None = None
) -> list[str]:
    """Return the ids of the items with at least `minimum` records, sorted; index 1 is the first."""
    total = pd.concat([pd.Series(c, index=i, dtype=np.int64) for i, c in counts]).groupby(level=0).sum()
    found = {str(i) for i in total.index[total >= minimum]}
    return sorted_ids(list(found if only is None else found & set(only)))


def group_partition(task: GroupTask) -> tuple[list[str], Counter[str], dict[str, Counter[str]]]:
    """Write a partition's records as numbers; return its users, what was dropped, and who is unknown."""
    storage = Storage(task.root)
    folder = f"{FOLDER}/{task.partition:05d}"
    names = [f"{folder}/{name}" for name in storage.list(folder)]
    if not names:
        return [], Counter(), {"user": Counter(), "item": Counter()}
    tables = []
    for name in names:
        with storage.open(name) as file:
            tables.append(pq.read_table(file))
    items, users = (pickle.loads(zlib.decompress(part)) for part in (task.items, task.users))
    table, users, dropped, unknown = group(pa.concat_tables(tables), items, users, task)
    write_table(storage, f"{FOLDER}/grouped-{task.partition:05d}.parquet", table)
    for name in names:
        storage.delete(name)
    return users, dropped, unknown


def group(
    table: pa.Table, items: Sequence[str], users: Sequence[str] | None, task: GroupTask
) -> tuple[pa.Table, list[str], Counter[str], dict[str, Counter[str]]]:
    """Return the records that are kept, by (user, time, row), as numbers; their users; drops; and who is unknown.

    The row decides between equal times, and alone where there is no time. Users are numbered within the partition in
    the order of their ids, or as `users` has them.
    """
    dropped: Counter[str] = Counter()
    table, item, lost_items = _known(table, "item", items)
    lost_users: Counter[str] = Counter()
    if users is None:
        names, user = _sorted_codes(table["user"])
    else:
        kept = pc.is_in(table["user"], pa.array(users, pa.string()))
        item = item[kept.to_numpy().astype(bool)]
        table, user, lost_users = _known(table, "user", users)
        names = []
    time = table[TIME].to_numpy() if TIME in table.column_names else np.zeros(len(table), np.int64)
    order = np.lexsort((table["row"].to_numpy(), time, user))
    table, user, item, time = table.take(pa.array(order)), user[order], item[order], time[order]
    if task.once or TIME in table.column_names:
        repeated = said_before(user, item, None if task.once else time)
        dropped["repeated record"] += int(repeated.sum())
        table, user, item = table.filter(pa.array(~repeated)), user[~repeated], item[~repeated]
    count = np.bincount(user, minlength=len(names) if users is None else len(users))
    enough = count >= task.minimum_user_count
    few, words = count[~enough & (count > 0)], f"user with fewer than {task.minimum_user_count} records"
    dropped[f"record of a {words}"], dropped[words] = int(few.sum()), len(few)
    if users is None:
        renumbered = np.cumsum(enough) - 1
        names = [name for name, good in zip(names, enough, strict=True) if good]
    else:
        renumbered = np.arange(len(users))
    mask = enough[user]
    columns = {"user": renumbered[user[mask]].astype(np.int64), "item": (item[mask] + 1).astype(np.int32)}
    table = table.filter(pa.array(mask)).drop_columns(["user", "item"])
    others = {name: table[name].cast(pa.int8()) if name == PART else table[name] for name in table.column_names}
    return pa.table(columns | others), names, dropped, {"user": lost_users, "item": lost_items}


def said_before(user: np.ndarray, item: np.ndarray, time: np.ndarray | None) -> np.ndarray:
    """Return which records say again what one before them said.

    Args:
        user: Of each record.
        item: Of each record.
        time: Of each record, which are sorted by user and time; None where a user and an item meet once at most.
    """
    if time is None:
        return np.asarray(pd.DataFrame({"u": user, "i": item}).duplicated())
    # Equal ones stand in one run of a user's records of one time: few are in a run of more than one.
    alike = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
    tied = np.flatnonzero(np.append(alike, False) | np.append(False, alike)) if len(user) else np.zeros(0, np.int64)
    found = np.zeros(len(user), bool)
    found[tied] = pd.DataFrame({"u": user[tied], "i": item[tied], "t": time[tied]}).duplicated()
    return found


def _known(table: pa.Table, column: str, names: Sequence[str]) -> tuple[pa.Table, np.ndarray, Counter[str]]:
    """Return the rows whose id is one of these names, its place there, and how often some of the others came."""
    place = pc.index_in(table[column], value_set=pa.array(names, pa.string()))
    there = pc.is_valid(place)
    lost = table[column].filter(pc.invert(there))
    some = lost.slice(0, 1).to_pylist()
    return table.filter(there), place.filter(there).to_numpy().astype(np.int64), Counter({s: len(lost) for s in some})


def _sorted_codes(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """Return the sorted distinct values and each row's position among them."""
    encoded = column.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    ordered = sorted_ids(names)
    position = {name: i for i, name in enumerate(ordered)}
    table = np.array([position[name] for name in names], dtype=np.int64)
    return ordered, table[encoded.indices.to_numpy()] if len(column) else np.zeros(0, np.int64)


def _refuse_unknown(
    known: dict[str, list[str]], lost: Sequence[Counter[str]], total: int, keys: FilterConfig, where: str
) -> None:
    for name, unknown in zip(("user", "item"), lost, strict=True):
        count = sum(unknown.values())
        allowed = 1.0 if name == "item" and keys.required else keys.maximum_unknown_share
        if name in known and count > allowed * total:
            raise DataError(
                f"{where}: {count:,} of {total:,} records name no known {name}, such as {next(iter(unknown))!r}; at "
                f"most {keys.maximum_unknown_share:.1%} may (data.filter.maximum_unknown_share)"
            )


def gathered(root: str, users: Sequence[int], numbered: bool) -> Records:
    """Return the records of all partitions, users numbered on from partition to partition unless they have numbers."""
    storage, tables, first = Storage(root), [], 0
    for number, count in enumerate(users):
        name = f"{FOLDER}/grouped-{number:05d}.parquet"
        if storage.exists(name):
            with storage.open(name) as file:
                table = pq.read_table(file)
            user = table["user"].to_numpy() + (0 if numbered else first)
            tables.append(table.set_column(0, "user", pa.array(user)))
        first += count
    if not tables:
        nothing = np.zeros(0, np.int64)
        return Records(nothing, nothing, nothing, {})
    table = pa.concat_tables(tables)
    del tables
    others = {n: table[n].to_numpy() for n in (TIME, RATING, PART) if n in table.column_names}
    found = Records(table["user"].to_numpy(), table["item"].to_numpy(), table["row"].to_numpy(), others)
    return found.take(np.argsort(found.user_E, kind="stable")) if numbered and len(users) > 1 else found


def core(records: Records, least: int, dropped: Counter[str]) -> Records:
    """Return the records whose users and items all have enough of them, found by dropping others again and again."""
    before = len(records)
    while len(records):
        user, item = records.user_E, records.item_E
        few = (np.bincount(user)[user] < least) | (np.bincount(item)[item] < least)
        if not few.any():
            break
        records = records.take(~few)
    dropped[f"record of a user or item with fewer than {least} records"] += before - len(records)
    if not len(records):
        raise DataError(f"data.filter.core: no record is left of {before:,} with {least}")
    return records


def compact(records: Records, names: IdVocabulary, unseen: Sequence[str]) -> Records:
    """Return the records with users and items renumbered that are still named, and drop the others' ids."""
    if "user" not in unseen:
        users = np.unique(records.user_E)
        names.users = [names.users[n] for n in users]
        records = replace(records, user_E=np.searchsorted(users, records.user_E))
    if "item" not in unseen:
        items = np.unique(records.item_E)
        names.items = [names.items[n - 1] for n in items]
        records = replace(records, item_E=(np.searchsorted(items, records.item_E) + 1).astype(np.int32))
    return records


def _nothing_left(where: str, total: int, dropped: Counter[str], needed: int = 0) -> DataError:
    """Return the error of records none of which is kept; `needed` is what the split wants of a user."""
    why = least_in_words(needed, 0, dropped) if needed else ""
    told = f"; {why}" if why else ""
    return DataError(f"{where}: no record is left of {total:,} (dropped: {in_words(dropped)}){told}")
