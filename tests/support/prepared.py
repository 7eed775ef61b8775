"""Data sets written by a test, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from rec.data.prepared import Prepared
from rec.data.writing import Draft


def write_prepared(
    root: str,
    *,
    splits: Mapping[str, pa.Table],
    entities: Mapping[str, tuple[pa.Table, int]],
    tables: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    shard_rows: int = 4096,
    manifest: Mapping[str, Any] | None = None,
) -> Prepared:
    """Write a data set and return it; it is complete once its manifest, written last, is there.

    Args:
        root: The folder.
        splits: The rows of `train`, `val` and `test`.
        entities: Per name the table with a column `id`, and the index of its first row.
        tables: Whole-data-set inputs by name.
        config: What it was made from, as plain values.
        shard_rows: Rows per file of a split.
        manifest: Further entries, such as `counts`, `modalities`, `synthetic_labels`.
    """
    draft = Draft(root)
    parts = {split: draft.parts(split, table, shard_rows) for split, table in splits.items()}
    for name, (table, _) in entities.items():
        draft.table(name, table)
    for name, array in tables.items():
        draft.array(name, array)
    told = {name: {"count": len(table), "first": first} for name, (table, first) in entities.items()}
    made: dict[str, Any] = {"counts": {}, "modalities": [], **(manifest or {})}
    draft.finish(made | {"entities": told, "splits": parts, "config": dict(config)})
    return Prepared.open(root)
