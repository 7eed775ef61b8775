"""Vectors of items by modality, and graphs of items that are alike.

feature_NAME.npy          (I + 1, D) float32 vectors of a modality, row 0 padding; zeros where an item has none
graph_NAME_edge.npy       (E, 2) int32 items, the second a neighbour of the first
graph_NAME_weight.npy     (E,) float32
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse
import torch

from rec.data.config import ContentConfig
from rec.data.neighbours import nearest
from rec.data.schema import RawData
from rec.data.stages.entities import Side
from rec.data.writing import Draft
from rec.errors import DataError
from rec.progress import Progress
from rec.sections import counted

Graph = tuple[np.ndarray, np.ndarray]
"""Edges (E, 2), item numbers from 0, and their weights (E,)."""


def write_content(
    draft: Draft, raw: RawData, items: Side, config: ContentConfig, say: Callable[[str], None]
) -> list[str]:
    """Write what a source and `[data.content]` give, and return the graphs' names.

    Raises:
        DataError: a file cannot be read or does not fit the items, or a graph has no edge.
    """
    rows = len(items.frame) if items.table is not None else len(items.ids)
    features = {name: _taken(_features(name, path, rows), items) for name, path in sorted(raw.features.items())}
    chosen: tuple[str, ...] = config.modalities
    for name in chosen:
        features[name] = _encoded(draft, name)
    graphs = {name: _kept(_graph(name, path, rows), items) for name, path in sorted(raw.graphs.items())}
    for name in sorted(features.keys() - graphs.keys()):
        say(f"nearest neighbours of {counted(len(items.ids), 'item')} by {name}")
        with Progress(f"prepare: nearest neighbours by {name}"):
            near_IK, cosine_IK = nearest(features[name], config.neighbours, config.search)
        there = near_IK >= 0
        graphs[name] = np.stack([np.nonzero(there)[0], near_IK[there]], 1), cosine_IK[there]
    for name, table in features.items():
        if config.length == "unit":
            table = torch.nn.functional.normalize(torch.from_numpy(table)).numpy()
        draft.array(f"feature_{name}", np.pad(table, ((1, 0), (0, 0))))
    for name, (edge, weight) in graphs.items():
        if not len(edge):
            raise DataError(f"content graph {name!r}: no edge between {counted(len(items.ids), 'item')}")
        draft.array(f"graph_{name}_edge", (edge + 1).astype(np.int32))
        draft.array(f"graph_{name}_weight", weight.astype(np.float32))
    return list(graphs)


def _features(name: str, path: str, rows: int) -> np.ndarray:
    """Return the vectors of a modality, a row per row of the items' table."""
    try:
        table = np.load(path)
    except (OSError, ValueError) as error:
        raise DataError(f"features of {name!r}: {path}: cannot be read ({error})") from error
    if table.ndim != 2 or not np.issubdtype(table.dtype, np.number):
        raise DataError(f"{path}: {table.dtype} of shape {table.shape}, expected numbers of shape (items, width)")
    if len(table) != rows:
        raise DataError(f"{path}: {counted(len(table), 'row')}, expected one for each of {counted(rows, 'item')}")
    table = table.astype(np.float32)
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(1))[0])
        raise DataError(f"{path}: row {row + 1} is not finite, expected numbers")
    return table


def _encoded(draft: Draft, name: str) -> np.ndarray:
    """Return the items' frozen vectors of a modality that encoding made."""
    if f"item_{name}.npy" not in draft.files:
        raise DataError(
            f"data.content.modalities: no frozen vectors of {name!r}; set data.encode.{name}.encoder, and a source "
            f"whose items have {name}s"
        )
    return np.array(np.load(draft.storage.open(f"item_{name}.npy")))[1:]


def _graph(name: str, path: str, rows: int) -> Graph:
    try:
        matrix = scipy.sparse.load_npz(path).tocoo()
    except (OSError, ValueError) as error:
        raise DataError(f"content graph {name!r}: {path}: cannot be read ({error})") from error
    if matrix.shape != (rows, rows):
        raise DataError(f"{path}: a matrix of shape {matrix.shape}, expected ({rows}, {rows})")
    return np.stack([matrix.row, matrix.col], 1), matrix.data


def _taken(table: np.ndarray, items: Side) -> np.ndarray:
    """Return the rows of those items that are kept, zeros for items in no table."""
    if items.table is None:
        return table
    found: np.ndarray = np.where((items.row_U < 0)[:, None], 0, table[np.maximum(items.row_U, 0)])
    return found


def _kept(graph: Graph, items: Side) -> Graph:
    """Return the edges between items that are kept, under their numbers."""
    if items.table is None:
        return graph
    edge, weight = graph
    number = np.full(len(items.frame), -1)
    there = items.row_U >= 0
    number[items.row_U[there]] = np.flatnonzero(there)
    renamed = number[edge]
    kept = (renamed >= 0).all(1)
    return renamed[kept], weight[kept]
