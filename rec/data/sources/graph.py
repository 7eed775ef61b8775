"""Where interactions and vectors of items come from: MMRec's files, a prepared data set, or a generated graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rec.data.planted_graph import planted_graph
from rec.data.prepared import Prepared
from rec.data.split import SPLITS, TEST
from rec.errors import DataError
from rec.keys_graph import GraphConfig
from rec.nn.pairs import flattened


@dataclass(frozen=True, slots=True)
class RawGraph:
    """Interactions sorted by user, with numbers from 0, and what is known beside them."""

    name: str
    user_E: np.ndarray
    item_E: np.ndarray
    part_E: np.ndarray | None
    features: dict[str, np.ndarray]
    user_ids: list[str] | None = None
    """None where numbers are all there is."""
    item_ids: list[str] | None = None
    groups: list[str] | None = None
    synthetic: bool = False


def read_graph(source: GraphConfig, dropped: Counter[str]) -> RawGraph:
    """Return the interactions and vectors that a config names.

    Raises:
        DataError: an input cannot be read, or holds what it must not.
    """
    if source.prepared:
        return _of_prepared(source, dropped)
    if source.interactions:
        user, item, part = read_interactions(source, dropped)
        features = {name: _features(name, source.path(path)) for name, path in sorted(source.features.items())}
        return RawGraph(source.path(source.interactions), user, item, part, features)
    graph = planted_graph(source.planted)
    groups = np.array(source.planted.modalities)[graph.followed_U].tolist()
    return RawGraph("generated", graph.user_E, graph.item_E, None, graph.features, groups=groups, synthetic=True)


def read_interactions(source: GraphConfig, dropped: Counter[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return user and item numbers from 0 and, where it is given, the part of every interaction, sorted by user.

    Raises:
        DataError: a column is missing, or a value is not what it must be (with its row).
    """
    columns, path = source.columns, source.path(source.interactions)
    names = [n for n in (columns.user, columns.item, columns.split) if n]
    try:
        frame = pd.read_csv(path, sep="\t", dtype=str)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if missing := [n for n in names if n not in frame]:
        raise DataError(f"{path}: no column {missing[0]!r}; there are {', '.join(frame.columns)}")
    numbers = frame[names].apply(pd.to_numeric, errors="coerce")
    for name in names:
        value = numbers[name]
        good = value.notna() & (value >= 0) & (value == value.round())
        if name == columns.split:
            good &= value <= TEST
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            wanted = "0, 1 or 2" if name == columns.split else "a whole number from 0"
            raise DataError(f"{path}, row {row + 2}: {name} is {frame[name].iloc[row]!r}, expected {wanted}")
    twice = numbers.duplicated([columns.user, columns.item])
    dropped["pair twice"] += int(twice.sum())
    numbers = numbers[~twice].astype(np.int64).sort_values(columns.user, kind="stable")
    user, item = numbers[columns.user].to_numpy(), numbers[columns.item].to_numpy()
    part = numbers[columns.split].to_numpy() if columns.split else None
    return user, item, part


def _of_prepared(source: GraphConfig, dropped: Counter[str]) -> RawGraph:
    """Return all pairs of a data set made from `[data.pairs]`, with its items' frozen vectors.

    Items without a modality named in `required` go first, then users and items with few interactions, again and again.
    """
    data = Prepared.open(source.path(source.prepared))
    parts = [data.rows(split) for split in SPLITS]
    lists = [flattened(table["target"].to_numpy()) for table in parts]
    user = np.concatenate([t["user"].to_numpy()[row.numpy()] for t, (row, _) in zip(parts, lists, strict=True)])
    item = np.concatenate([index.numpy() for _, index in lists])
    vectors = {name: np.array(data.array(f"item_{name}")) for name in sorted(source.features)}
    there: list[np.ndarray] = [(vectors[name] != 0).any(axis=1) for name in source.required]
    kept = np.ones(len(item), dtype=bool)
    for part in there:
        kept &= part[item]
    dropped["interaction with an item without a required modality"] += int((~kept).sum())
    user, item, before = user[kept], item[kept], int(kept.sum())
    while len(user):
        few = (np.bincount(user)[user] < source.minimum_count) | (np.bincount(item)[item] < source.minimum_count)
        if not few.any():
            break
        user, item = user[~few], item[~few]
    dropped["interaction of a user or item with too few"] += before - len(user)
    if not len(user):
        raise DataError(
            f"{source.prepared}: no interaction is left of {before:,} with minimum_count {source.minimum_count}"
        )
    users, items = np.unique(user), np.unique(item)
    order = np.lexsort((item, user))
    return RawGraph(
        source.prepared,
        np.searchsorted(users, user[order]),
        np.searchsorted(items, item[order]),
        None,
        {name: vector[items] for name, vector in vectors.items()},
        data.users["id"].take(users).to_pylist(),
        data.items["id"].take(items - 1).to_pylist(),
        synthetic=bool(data.manifest.get("synthetic_labels")),
    )


def _features(name: str, path: str) -> np.ndarray:
    try:
        table = np.load(path)
    except (OSError, ValueError) as error:
        raise DataError(f"data.graph.features.{name}: {path}: cannot be read ({error})") from error
    if table.ndim != 2 or not np.issubdtype(table.dtype, np.number):
        raise DataError(f"{path}: {table.dtype} of shape {table.shape}, expected numbers of shape (items, width)")
    table = table.astype(np.float32)
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(1))[0])
        raise DataError(f"{path}: row {row} is not finite, expected numbers")
    return table
