"""Interactions, vectors of items and content graphs to a prepared data set for recommenders on graphs.

Splits, where `history` is always what training holds, so that validation items are ranked in test as well:

    train  one row per interaction: user, no history, the item
    val    one row per user: training items -> validation items
    test   one row per user: training items -> test items

Tables beside those of every data set:

    user_count.npy            (U,) int64 training interactions of each user
    edge_train.npy            (E, 2) int32 user and item of every training interaction, user by user
    edge_by_item_user.npy     (E,) int32 users of the same interactions, item by item ...
    edge_by_item_place.npy    (E,) int64 ... and their places in edge_train
    feature_NAME.npy          (I + 1, D) float32 vectors of a modality, row 0 padding; zeros where an item has none
    graph_NAME_edge.npy       (E, 2) int32 items, the second a neighbour of the first
    graph_NAME_weight.npy     (E,) float32
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import scipy.sparse
import torch

from rec.data.neighbours import nearest
from rec.data.prepared import FORMAT, MANIFEST, Prepared, write_array, write_table
from rec.data.sources.graph import read_graph
from rec.data.split import SPLITS, TEST, TRAIN, VALIDATION, lists
from rec.errors import DataError
from rec.keys import DataConfig
from rec.keys_graph import GraphConfig
from rec.seeds import generator
from rec.storage import Storage

ROWS_PER_FILE = 1 << 18
TEN = 10
"""Interactions from which on a user's share for validation and test grows."""


def prepare_graph(config: DataConfig, say: Callable[[str], None]) -> Prepared:
    """Return the data set made from `config.graph`; see `rec.data.prepare.prepare`.

    Raises:
        DataError: an input cannot be read, does not fit the others, or nothing is left of it.
    """
    source = config.graph
    assert source is not None
    storage = Storage(config.root)
    dropped: Counter[str] = Counter()
    raw = read_graph(source, dropped)
    user, item, features = raw.user_E, raw.item_E, raw.features
    part = eight_one_one(user, source.split_seed) if raw.part_E is None else raw.part_E
    trained, read = np.isin(user, user[part == TRAIN]), len(user)
    dropped["interaction of a user without training"] += int((~trained).sum())
    user, item, part = user[trained], item[trained], part[trained]
    for number, name in enumerate(SPLITS):
        if not (part == number).any():
            raise DataError(f"{raw.name}: no interaction for {name} among {read:,}")
    num_users, num_items = int(raw.user_E.max()) + 1, int(raw.item_E.max()) + 1
    num_items = max([num_items, *(len(table) for table in features.values())])
    graphs = _graphs(source, features, num_items, say)
    for name, table in features.items():
        if len(table) != num_items:
            raise DataError(
                f"{source.path(source.features[name])}: {len(table):,} rows, expected one for each of {num_items:,} "
                f"items (the largest number in {raw.name} is {int(raw.item_E.max())})"
            )
    for name in (MANIFEST, *SPLITS, *(n for n in storage.list() if n.endswith((".npy", ".parquet")))):
        storage.delete(name)
    train = part == TRAIN
    write_array(storage, "user_count", np.bincount(user[train], minlength=num_users).astype(np.int64))
    write_array(storage, "edge_train", np.stack([user[train], item[train] + 1], 1).astype(np.int32))
    place = np.argsort(item[train], kind="stable")
    write_array(storage, "edge_by_item_user", user[train][place].astype(np.int32))
    write_array(storage, "edge_by_item_place", place)
    for name, table in features.items():
        if source.feature_length == "unit":
            table = torch.nn.functional.normalize(torch.from_numpy(table)).numpy()
        write_array(storage, f"feature_{name}", np.pad(table, ((1, 0), (0, 0))))
    for name, (edge, weight) in graphs.items():
        write_array(storage, f"graph_{name}_edge", (edge + 1).astype(np.int32))
        write_array(storage, f"graph_{name}_weight", weight.astype(np.float32))
    for name, kept in (("item_count", train), ("item_total", np.ones(len(item), bool))):
        write_array(storage, name, np.bincount(item[kept] + 1, minlength=num_items + 1).astype(np.int64))
    splits = {name: _write_rows(storage, name, user, item, part, config.shard_rows) for name in SPLITS}
    for name, count, first, ids in (("user", num_users, 0, raw.user_ids), ("item", num_items, 1, raw.item_ids)):
        columns = {name: np.arange(first, first + count), "id": ids or np.arange(count).astype(str)}
        if name == "user" and raw.groups is not None:
            columns["group"] = raw.groups
        write_table(storage, f"{name}.parquet", pa.table(columns))
    names = [name for files in splits.values() for name, _ in files]
    names += [n for n in storage.list() if n.endswith((".npy", ".parquet"))]
    counts = {"interactions": len(user), "users": num_users, "items": num_items}
    counts |= {f"{name} interactions": int((part == number).sum()) for number, name in enumerate(SPLITS)}
    storage.write_json(
        MANIFEST,
        {
            "format": FORMAT,
            "counts": counts,
            "dropped": {k: v for k, v in sorted(dropped.items()) if v},
            "split_sha256": hashlib.sha256(np.stack([user, item, part]).astype("<i8").tobytes()).hexdigest(),
            "modalities": [],
            "synthetic_labels": raw.synthetic,
            "splits": splits,
            "config": config.model_dump(mode="json"),
            "files": [storage.entry(name) for name in names],
        },
    )
    told = ", ".join(f"{value:,} {name}" for name, value in counts.items())
    say(f"{config.root}: {told}; graphs: {', '.join(graphs) or 'none'}")
    return Prepared.open(config.root)


def eight_one_one(user: np.ndarray, seed: int) -> np.ndarray:
    """Return the part of each interaction (sorted by user), drawn 8:1:1 within each user.

    With n interactions: one each for validation and test where n < 10, else h = int(0.2 n) of which h // 2 for
    validation. Source: MMRec's `1splitting.ipynb`, which does not say its seed.
    """
    count = np.bincount(user)[user]
    order = np.lexsort((generator(seed, "graph split").random(len(user)), user))
    first = np.searchsorted(user, user)
    place = np.empty(len(user), dtype=np.int64)
    place[order] = np.arange(len(user))
    place -= first
    held = np.where(count < TEN, 2, count // 5)
    part = np.where(place < held, TEST, TRAIN)
    return np.where(place < held // 2, VALIDATION, part)


def _graphs(
    source: GraphConfig, features: dict[str, np.ndarray], num_items: int, say: Callable[[str], None]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each content graph's edges (item numbers from 0) and weights."""
    graphs = {}
    for name, file in sorted(source.graphs.items()):
        path = source.path(file)
        try:
            matrix = scipy.sparse.load_npz(path).tocoo()
        except (OSError, ValueError) as error:
            raise DataError(f"data.graph.graphs.{name}: {path}: cannot be read ({error})") from error
        if matrix.shape != (num_items, num_items):
            raise DataError(f"{path}: a matrix of shape {matrix.shape}, expected ({num_items}, {num_items})")
        graphs[name] = np.stack([matrix.row, matrix.col], 1), matrix.data
    for name in sorted(features.keys() - graphs.keys()):
        say(f"nearest neighbours of {num_items:,} items by {name}")
        near_IK, cosine_IK = nearest(features[name], source.neighbours, source.search)
        there = near_IK >= 0
        graphs[name] = np.stack([np.nonzero(there)[0], near_IK[there]], 1), cosine_IK[there]
    for name, (edge, _) in graphs.items():
        if not len(edge):
            raise DataError(f"content graph {name!r}: no edge between {num_items:,} items")
    return graphs


def _write_rows(
    storage: Storage, name: str, user: np.ndarray, item: np.ndarray, part: np.ndarray, shard_rows: int
) -> list[tuple[str, int]]:
    chosen = part == SPLITS.index(name)
    if name == "train":
        count = int(chosen.sum())
        offset = pa.array(np.arange(count + 1), pa.int32())
        target = pa.ListArray.from_arrays(offset, pa.array((item[chosen] + 1).astype(np.int32)))
        nothing = pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, np.int32)), pa.array([], pa.int32()))
        table = pa.table({"user": pa.array(user[chosen], pa.int64()), "history": nothing, "target": target})
        table = table.take(generator(0, "graph rows").permutation(count))
        shard_rows = ROWS_PER_FILE
    else:
        users = np.unique(user[chosen])
        history = lists(users, user, item + 1, part == TRAIN)
        target = lists(users, user, item + 1, chosen)
        table = pa.table({"user": pa.array(users, pa.int64()), "history": history, "target": target})
    files = []
    for number, start in enumerate(range(0, len(table), shard_rows)):
        path = f"{name}/part-{number:05d}.parquet"
        write_table(storage, path, table.slice(start, shard_rows))
        files.append((path, len(table.slice(start, shard_rows))))
    return files
