"""K texts of each item and their vectors: features, which are encoded over the whole catalogue.

text                (I + 1, K, M) float32, row 0 padding; zeros where an item has no such text
text_concatenated   (I + 1, 1, M) the K texts as one
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO

import numpy as np
import pandas as pd

from rec.data.config import ENDPOINT, TextConfig
from rec.data.items import as_text
from rec.data.sources.metadata import FIELDS, named
from rec.data.stages.text_vectors import TABLES, TextVectors
from rec.data.texts import write_texts
from rec.data.writing import Draft
from rec.progress import Progress
from rec.sections import counted

Say = Callable[[str], None]
ITEMS_AT_ONCE = 4096
"""Items whose vectors are written at once."""


def write_item_texts(
    draft: Draft, items: pd.DataFrame, config: TextConfig, vectors: TextVectors, say: Say
) -> pd.DataFrame:
    """Write the vectors of K texts per item; return the items with a column per text, null where there is none.

    A modality that is a column of the items is taken as it is; others are written by template from what is known. The
    vector of a text that an item does not have is 0, which models take as absent. Its modality's name stands in for it
    where TF-IDF is fitted alone, so that other vectors do not depend on it; servers are not asked for it.
    """
    names = config.modalities
    with Progress(f"prepare: write texts of {counted(len(items), 'item')}"):
        frame = _with_texts(items, names)
    there_IK = frame[list(names)].to_numpy() != ""
    for name, there_I in zip(names, there_IK.T, strict=True):
        _tell_unknown(name, int((~there_I).sum()), len(frame), say)
    rows = frame[list(names)].to_numpy()
    absent = [""] * len(names) if config.encoder == ENDPOINT else names
    flat = [text or name for row in rows for text, name in zip(row, absent, strict=True)]
    of = f"{counted(len(frame), 'item')} x {len(names)}"
    say(f"encoding {counted(len(flat), 'text')} ({of}) with {config.encoder}")
    joined = [" ".join(text for text in row if text) for row in rows]
    found = vectors.tables(dict(zip(TABLES, (flat, joined), strict=True)))
    for name, known in zip(TABLES, (there_IK, there_IK.any(1)[:, None]), strict=True):
        _write_vectors(draft, name, found[name], known)
    frame[list(names)] = frame[list(names)].where(there_IK, None)
    return frame


def _write_vectors(draft: Draft, name: str, vectors: np.ndarray, known_IK: np.ndarray) -> None:
    """Write the vectors of K texts per item as (I + 1, K, M), 0 where there is no text; row 0 is padding."""
    items, texts = known_IK.shape
    rows = vectors.reshape(items, texts, -1)
    shape = (items + 1, *rows.shape[1:])

    def fill(stream: IO[bytes]) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(np.zeros(shape[1:], np.float32).tobytes())
        for start in range(0, items, ITEMS_AT_ONCE):
            end = start + ITEMS_AT_ONCE
            part = rows[start:end] * known_IK[start:end, :, None]
            stream.write(part.astype(np.float32, copy=False).tobytes())

    draft.file(f"{name}.npy", fill)


def _with_texts(items: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the items with a column per text, "" where there is none."""
    frame = items.copy()
    written = tuple(name for name in names if name not in frame)
    for name in set(names) - set(written):
        text = frame[name].astype(object).where(frame[name].notna(), "").astype(str)
        frame[name] = text.where(text.str.strip() != "", "")
    if written:
        films = named(as_text(items))[list(FIELDS)].to_numpy()
        texts = [write_texts(dict(zip(FIELDS, film, strict=True)), written) for film in films]
        frame[list(written)] = texts
    return frame


def _tell_unknown(name: str, unknown: int, items: int, say: Say) -> None:
    """Say of how many items nothing is known that a text could tell."""
    if unknown:
        advice = "; leave it out of data.text.modalities" if unknown == items else ""
        say(f"items: text {name!r}: nothing is known of {unknown:,} of {items:,}, which have no such text{advice}")
