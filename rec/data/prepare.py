"""Raw inputs to a prepared data set, in passes whose parts share nothing and fit in memory.

1. read      every piece of the input is cleaned, counted and cut into partitions by user
2. group     every partition becomes sequences over the items that are frequent enough
3. split     every partition's sequences get dense user indices and become rows of the splits

What runs a pass's parts is a `Runner`. Pairs with texts and pictures are prepared by `rec.data.pairs`.
"""

from __future__ import annotations

import pickle
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rec.data import planted
from rec.data.encoders import Tfidf, TransformerEncoder
from rec.data.graph import prepare_graph
from rec.data.pairs import prepare_pairs
from rec.data.prepared import FORMAT, MANIFEST, Prepared, write_array, write_table
from rec.data.runner import Actors, Runner
from rec.data.sequences import SPLITS, Sequences, clean, group, partition, sorted_ids, split_rows
from rec.data.sources.interactions import Piece, estimated_rows, pieces, read
from rec.data.sources.metadata import FIELDS, fill, read_ids, read_items
from rec.data.texts import write_texts
from rec.errors import DataError
from rec.keys import DataConfig, SourceConfig, TextConfig
from rec.storage import Storage, absolute

ROWS_PER_PARTITION = 1_000_000
WORK = "work"


@dataclass(frozen=True, slots=True)
class ReadTask:
    """Pass 1 for one piece of the input."""

    piece: Piece
    source: SourceConfig
    root: str
    partitions: int


@dataclass(frozen=True, slots=True)
class GroupTask:
    """Pass 2 for one partition."""

    root: str
    partition: int
    items: bytes
    """Compressed vocabulary: what travels to every task stays small."""
    minimum_user_count: int


@dataclass(frozen=True, slots=True)
class SplitTask:
    """Pass 3 for one partition."""

    root: str
    partition: int
    first_user: int
    num_items: int
    shard_rows: int


@dataclass(frozen=True, slots=True)
class GenerateTask:
    """One shard of generated events."""

    config: Any
    root: str
    shard: int


def prepare(config: DataConfig, runner: Runner, say: Callable[[str], None]) -> Prepared:
    """Return the data set made from `config`; where it is there already, made from the same config, it is kept.

    Nothing new is readable under `config.root` until the manifest is written, last; input that cannot be used leaves
    a data set that was there as it was.

    Raises:
        DataError: an input cannot be read, has another schema, or nothing is left of it.
    """
    storage = Storage(config.root)
    root = absolute(config.root)
    wanted = config.model_dump(mode="json")
    if storage.exists(MANIFEST):
        found = Prepared.open(config.root)
        if found.manifest["config"] == wanted:
            say(f"{config.root}: already prepared from the same config")
            return found
    if config.pairs is not None:
        return prepare_pairs(config, runner, say)
    if config.graph is not None:
        return prepare_graph(config, say)
    source = config.source
    storage.delete(WORK)
    if source.kind == "planted":
        source = generate(source, root, runner)
    found_pieces = pieces(source)
    partitions = max(1, -(-estimated_rows(found_pieces) // ROWS_PER_PARTITION))
    reads = runner.map(read_piece, [ReadTask(p, source, root, partitions) for p in found_pieces], "prepare: read")
    dropped: Counter[str] = sum((r[1] for r in reads), Counter())
    total = sum(r[0] for r in reads)
    items = vocabulary([r[2] for r in reads], source.minimum_item_count)
    if not items:
        raise DataError(f"{', '.join(source.interactions)}: no interaction is left of {total} ({_reasons(dropped)})")
    packed = zlib.compress(pickle.dumps(items))
    groups = runner.map(
        group_partition,
        [GroupTask(root, p, packed, source.minimum_user_count) for p in range(partitions)],
        "prepare: group",
    )
    dropped = sum((g[1] for g in groups), dropped)
    first = np.concatenate([[0], np.cumsum([g[0] for g in groups])])
    if first[-1] == 0:
        raise DataError(f"{', '.join(source.interactions)}: no user is left ({_reasons(dropped)})")
    split_tasks = [SplitTask(root, p, int(first[p]), len(items), config.shard_rows) for p in range(partitions)]
    # Only now, with nothing left that bad input can stop, does a data set of another config make way.
    for name in (MANIFEST, *SPLITS):
        storage.delete(name)
    parts = runner.map(split_partition, split_tasks, "prepare: split")
    write_array(storage, "item_count", np.sum([p[1] for p in parts], axis=0))
    write_array(storage, "item_total", np.sum([p[2] for p in parts], axis=0))
    write_table(storage, "user.parquet", _with_truth(pa.concat_tables([p[3] for p in parts]), storage))
    modalities = write_items(config, source, items, storage, runner, say)
    splits = {split: [f for p in parts for f in p[0][split]] for split in SPLITS}
    kept = int(np.sum([p[2].sum() for p in parts]))
    counts = {"interactions_read": total, "interactions": kept, "users": int(first[-1]), "items": len(items)}
    tables = [n for n in storage.list() if n.endswith((".npy", ".parquet"))]
    names = [name for split in SPLITS for name, _ in splits[split]] + tables
    storage.write_json(
        MANIFEST,
        {
            "format": FORMAT,
            "counts": counts,
            "dropped": {k: v for k, v in sorted(dropped.items()) if v},
            "modalities": modalities,
            "splits": splits,
            "config": wanted,
            "files": [storage.entry(name) for name in names],
        },
    )
    storage.delete(WORK)
    say(f"{config.root}: {kept:,} interactions, {first[-1]:,} users, {len(items):,} items; dropped {_reasons(dropped)}")
    return Prepared.open(config.root)


def generate(source: SourceConfig, root: str, runner: Runner) -> SourceConfig:
    """Write the planted catalogue below `root` and return the source that reads it."""
    config = source.planted
    storage = Storage(root)
    storage.delete("raw")
    write_table(storage, "raw/items.parquet", planted.item_rows(config))
    runner.map(write_shard, [GenerateTask(config, root, s) for s in range(config.shards)], "prepare: generate")
    raw = f"{root.rstrip('/')}/raw"
    return source.model_copy(
        update={
            "kind": "table",
            "interactions": (f"{raw}/events",),
            "items": f"{raw}/items.parquet",
            "columns": source.columns.model_copy(update={"time": "time"}),
        }
    )


def write_shard(task: GenerateTask) -> int:
    """Write one shard of generated events and its users' truth; return the number of events."""
    storage = Storage(task.root)
    events, people = planted.shard_rows(task.config, task.shard)
    write_table(storage, f"raw/events/part-{task.shard:05d}.parquet", events)
    write_table(storage, f"raw/users/part-{task.shard:05d}.parquet", people)
    return len(events)


def read_piece(task: ReadTask) -> tuple[int, Counter[str], tuple[list[str], np.ndarray]]:
    """Write a piece's usable rows into partitions; return rows read, drops, and item counts."""
    storage = Storage(task.root)
    dropped: Counter[str] = Counter()
    counts: list[pd.Series[int]] = []
    rows = 0
    for block, table in enumerate(read(task.piece, task.source)):
        order = (task.piece.index << 40) + rows + np.arange(len(table))
        rows += len(table)
        kept, reasons = clean(table.append_column("order", pa.array(order, pa.int64())), task.source)
        dropped += reasons
        if not len(kept):
            continue
        values = kept["item"].value_counts()
        counts.append(pd.Series(values.field("counts").to_numpy(), values.field("values").to_pylist()))
        kept = kept.drop_columns([name for name in ("rating",) if name in kept.column_names])
        for number, part in enumerate(partition(kept, task.partitions)):
            if len(part):
                write_table(storage, f"{WORK}/{number:05d}/{task.piece.index:05d}-{block:05d}.parquet", part)
    total = pd.concat(counts).groupby(level=0).sum() if counts else pd.Series(dtype=np.int64)
    return rows, dropped, ([str(i) for i in total.index], total.to_numpy(np.int64))


def vocabulary(counts: Sequence[tuple[list[str], np.ndarray]], minimum: int) -> list[str]:
    """Return the ids of the items with at least `minimum` events, sorted; index 1 is the first."""
    total = pd.concat([pd.Series(c, index=i) for i, c in counts]).groupby(level=0).sum()
    return sorted_ids([str(i) for i in total.index[total >= minimum]])


def group_partition(task: GroupTask) -> tuple[int, Counter[str]]:
    """Write a partition's sequences; return its number of users and what was dropped."""
    storage = Storage(task.root)
    folder = f"{WORK}/{task.partition:05d}"
    names = [f"{folder}/{name}" for name in storage.list(folder)]
    if not names:
        return 0, Counter()
    tables = []
    for name in names:
        with storage.open(name) as file:
            tables.append(pq.read_table(file))
    items = pickle.loads(zlib.decompress(task.items))
    sequences, dropped = group(pa.concat_tables(tables), items, task.minimum_user_count)
    lists = pa.LargeListArray.from_arrays(sequences.offset, sequences.item)
    table = pa.table({"user": pa.array(sequences.user.tolist(), pa.string()), "items": lists})
    write_table(storage, f"{WORK}/grouped-{task.partition:05d}.parquet", table)
    for name in names:
        storage.delete(name)
    return len(sequences.user), dropped


def split_partition(
    task: SplitTask,
) -> tuple[dict[str, list[tuple[str, int]]], np.ndarray, np.ndarray, pa.Table]:
    """Write a partition's rows of every split; return the files, both item counts and its users."""
    storage = Storage(task.root)
    name = f"{WORK}/grouped-{task.partition:05d}.parquet"
    files: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
    train, total = np.zeros(task.num_items + 1, np.int64), np.zeros(task.num_items + 1, np.int64)
    if not storage.exists(name):
        return files, train, total, pa.table({"user": pa.array([], pa.int64()), "id": pa.array([], pa.string())})
    with storage.open(name) as file:
        table = pq.read_table(file)
    lists = pa.concat_arrays([c.cast(pa.large_list(pa.int32())) for c in table["items"].chunks])
    offset, item = lists.offsets.to_numpy(), lists.values.to_numpy()
    users = np.array(table["user"].to_pylist(), dtype=object)
    for shard, start in enumerate(range(0, len(users), task.shard_rows)):
        end = min(start + task.shard_rows, len(users))
        base = offset[start]
        part = Sequences(users[start:end], offset[start : end + 1] - base, item[base : offset[end]])
        for split in SPLITS:
            rows = split_rows(part, split, task.first_user + start)
            path = f"{split}/part-{task.partition:05d}-{shard:05d}.parquet"
            write_table(storage, path, rows)
            files[split].append((path, len(rows)))
            if split == "train":
                train += np.bincount(pc.list_flatten(rows["history"]).to_numpy(), minlength=len(train))
                train += np.bincount(rows["target"].to_numpy(), minlength=len(train))
        total += np.bincount(part.item, minlength=len(total))
    index = pa.array(task.first_user + np.arange(len(users)), pa.int64())
    return files, train, total, pa.table({"user": index, "id": table["user"].cast(pa.string())})


def write_items(
    config: DataConfig,
    source: SourceConfig,
    ids: list[str],
    storage: Storage,
    runner: Runner,
    say: Callable[[str], None],
) -> list[str]:
    """Write item.parquet and, where texts are asked for, their vectors; return the modalities."""
    frame = item_metadata(source, ids)
    if config.text is None:
        frame = frame.drop(columns="image", errors="ignore")
        write_table(storage, "item.parquet", pa.Table.from_pandas(frame, preserve_index=False))
        return []
    names = config.text.modalities
    own = [name for name in names if name in frame]
    written = [name for name in names if name not in frame]
    for record, texts in zip(frame.index, _templates(frame, tuple(written)), strict=True):
        frame.loc[record, written] = texts
    for name in own:
        frame[name] = frame[name].astype(str).where(frame[name].astype(str) != "", name)
    write_table(storage, "item.parquet", pa.Table.from_pandas(frame, preserve_index=False))
    texts = [text for row in frame[list(names)].to_numpy() for text in row]
    say(f"encoding {len(texts):,} texts ({len(ids):,} items x {len(names)}) with {config.text.encoder}")
    joined = [" ".join(texts[i : i + len(names)]) for i in range(0, len(texts), len(names))]
    if config.text.encoder == "tfidf":
        vectors = Tfidf(texts, config.text.width).encode(texts)
        whole = Tfidf(joined, config.text.width).encode(joined)
    else:
        vectors, whole = _encoded(texts, config.text, runner), _encoded(joined, config.text, runner)
    for name, array in (("text", vectors), ("text_concatenated", whole)):
        table = np.zeros((len(ids) + 1, len(array) // len(ids), array.shape[1]), dtype=np.float32)
        table[1:] = array.reshape(len(ids), -1, array.shape[1])
        write_array(storage, name, table)
    return list(names)


def _encoded(texts: list[str], config: TextConfig, runner: Runner) -> np.ndarray:
    """Return the texts' vectors under a transformers model, batch by batch."""
    batches = [texts[i : i + config.batch_size] for i in range(0, len(texts), config.batch_size)]
    make = partial(_text_encoder, config)
    return np.concatenate(runner.map_actors(make, batches, "prepare: encode", Actors(config.actors)))


def _text_encoder(config: TextConfig) -> Callable[[list[str]], np.ndarray]:
    return TransformerEncoder(config.encoder, config.pooling, config.max_tokens).encode


def item_metadata(source: SourceConfig, ids: list[str]) -> pd.DataFrame:
    """Return one row per item, in the order of its index: item, id, every metadata field as text, own columns."""
    base = pd.DataFrame({"key": ids})
    if source.item_ids is not None:
        mapping = read_ids(source.item_ids)
        if missing := [i for i in ids if i not in mapping]:
            raise DataError(f"{source.item_ids}: no line for item {missing[0]} and {len(missing) - 1} more")
        base["key"] = [mapping[i] for i in ids]
    if source.items is not None:
        items = read_items(source.items)
        if "item" not in items:
            raise DataError(f"{source.items}: no column for the item id")
        frame = base.merge(items.drop_duplicates("item"), how="left", left_on="key", right_on="item")
        frame["item"] = base["key"]
    else:
        frame = base.assign(item=base["key"])
    for name in FIELDS:
        frame[name] = frame[name].fillna("") if name in frame else ""
    text = [c for c in frame.columns if c != "image"]
    frame[text] = frame[text].fillna("")
    for uri in source.metadata:
        frame = fill(frame, read_items(uri))
    frame = frame.drop(columns=["key", "item"])
    frame.insert(0, "item", np.arange(1, len(ids) + 1))
    frame.insert(1, "id", ids)
    return frame


def _templates(frame: pd.DataFrame, modalities: tuple[str, ...]) -> list[list[str]]:
    films = [dict(zip(FIELDS, row, strict=True)) for row in frame[list(FIELDS)].astype(str).to_numpy()]
    return [write_texts(film, modalities) for film in films]


def _with_truth(users: pa.Table, storage: Storage) -> pa.Table:
    """Return the user table with the planted truth beside it, where the data set was generated."""
    names = storage.list("raw/users")
    if not names:
        return users
    truth = pa.concat_tables([pq.read_table(storage.open(f"raw/users/{name}")) for name in names])
    where = pc.index_in(users["id"], value_set=truth["user"].combine_chunks())
    return users.append_column("followed", truth["followed"].combine_chunks().take(where.combine_chunks()))


def _reasons(dropped: Counter[str]) -> str:
    parts = [f"{count:,} {reason}" for reason, count in sorted(dropped.items()) if count]
    return ", ".join(parts) or "nothing"
