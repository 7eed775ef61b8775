"""What was written of items as tables: a row per text, and a row per passage that a text was written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rec.data.modalities.items import TEMPLATE, Written
from rec.data.modalities.passages import Passage

WRITTEN = pa.schema(
    [
        ("item", pa.int64()),
        ("modality", pa.string()),
        ("text", pa.string()),
        ("writer", pa.string()),
        ("model", pa.string()),
        ("faithfulness", pa.float32()),
        ("words", pa.float32()),
        ("entities", pa.float32()),
        ("unsupported", pa.list_(pa.string())),
        ("passages", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
        ("repaired", pa.bool_()),
        ("reflected", pa.bool_()),
        ("fault", pa.string()),
        ("input_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
    ]
)
"""Items count from 1, as everywhere; `faithfulness`, `words` and `entities` are of what the model wrote, null where it
wrote nothing; tokens are those of the whole item, in each of its rows."""
PASSAGES = pa.schema([(name, pa.string()) for name in ("id", "source", "title", "year", "text")])


def written_table(written: Sequence[Written]) -> pa.Table:
    """Return a row per text, items in order."""
    columns: dict[str, list[object]] = {name: [] for name in WRITTEN.names}
    for one in written:
        names, size = list(one.texts), len(one.texts)
        found = [one.faithfulness.get(name) for name in names]
        columns["modality"] += names
        columns["text"] += one.texts.values()
        columns["writer"] += [one.writers[name] for name in names]
        columns["faithfulness"] += [None if judged is None else judged.score for judged in found]
        columns["words"] += [None if judged is None else judged.words for judged in found]
        columns["entities"] += [None if judged is None else judged.entities for judged in found]
        columns["unsupported"] += [[] if judged is None else list(judged.unsupported) for judged in found]
        same: dict[str, object] = {
            "item": one.item.place + 1,
            "model": one.model,
            "passages": [found.passage.id for found in one.item.retrieved],
            "scores": [found.score for found in one.item.retrieved],
            "repaired": one.repaired,
            "reflected": one.reflected,
            "fault": one.fault,
            "input_tokens": one.input_tokens,
            "output_tokens": one.output_tokens,
        }
        for name, value in same.items():
            columns[name] += [value] * size
    return pa.table(columns, schema=WRITTEN)


def template_table(texts: Mapping[str, Sequence[str]], first: int) -> pa.Table:
    """Return a row per text of items in a row that templates wrote, the same as `written_table` returns of them.

    Args:
        texts: By modality, a text of each item.
        first: Place of the first item, from 0.
    """
    names, flat = list(texts), [text for row in zip(*texts.values(), strict=True) for text in row]
    items = len(flat) // max(len(names), 1)
    same: dict[str, Any] = {"writer": TEMPLATE, "model": "", "fault": "", "repaired": False, "reflected": False}
    same |= {"unsupported": [], "passages": [], "scores": [], "input_tokens": 0, "output_tokens": 0}
    columns: dict[str, Any] = {
        "item": np.repeat(np.arange(first + 1, first + 1 + items), len(names)),
        "modality": pa.array(names * items, pa.string()),
        "text": pa.array(flat, pa.string()),
    }
    for field in WRITTEN:
        if field.name in same:
            columns[field.name] = pa.repeat(pa.scalar(same[field.name], field.type), len(flat))
    columns |= {field.name: pa.nulls(len(flat), field.type) for field in WRITTEN if field.name not in columns}
    return pa.table({name: columns[name] for name in WRITTEN.names}, schema=WRITTEN)


def passages_table(passages: Sequence[Passage]) -> pa.Table:
    """Return a row per passage."""
    return pa.table({name: [getattr(one, name) for one in passages] for name in PASSAGES.names}, schema=PASSAGES)
