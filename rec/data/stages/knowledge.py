"""One text of what is known of each user and item, as vectors of one space: for adaptors that read both.

knowledge_item.npy     (I + 1, M) float32, row 0 padding; zeros where nothing is known
knowledge_user.npy     (U, M) float32
knowledge_told.npy     (U,) int32 how many of a user's first records of training the text names

Source: KAR (Xi et al. 2023), section 3; texts are by template where no language model writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from rec.data.config import TextConfig
from rec.data.items import as_text
from rec.data.sources.metadata import named
from rec.data.stages.entities import Side
from rec.data.stages.split import Split
from rec.data.stages.text_vectors import TextVectors
from rec.data.views.view import TRAIN
from rec.data.writing import Draft
from rec.progress import Progress
from rec.sections import counted

Say = Callable[[str], None]
NOBODY = "a user"


def write_knowledge(
    draft: Draft,
    users: Side,
    items: pd.DataFrame,
    texts_IK: pd.DataFrame,
    split: Split,
    config: TextConfig,
    vectors: TextVectors,
    say: Say,
) -> None:
    """Write the vectors of one text per user and per item.

    An item's text is what its K texts say; a user's names what the table tells of the user, and the first
    `config.user_items` items of training with their ratings: none that is to be found in validation or test.
    Texts may have the names of facts, so that both stand apart.
    """
    item_I = [" ".join(text for text in row if isinstance(text, str)) for row in texts_IK.values]
    with Progress(f"prepare: write texts of {counted(len(users.ids), 'user')}"):
        user_U, told_U = user_texts(users, labels(items), split, config.user_items)
    texts = [*item_I, *user_U]
    say(f"encoding {counted(len(texts), 'text')} of items and of users with {config.encoder}")
    vector_NM = vectors.knowledge(texts) * np.array([bool(text) for text in texts])[:, None]
    table = np.zeros((len(item_I) + 1, vector_NM.shape[1]), dtype=np.float32)
    table[1:] = vector_NM[: len(item_I)]
    draft.array("knowledge_item", table)
    draft.array("knowledge_user", vector_NM[len(item_I) :].astype(np.float32))
    draft.array("knowledge_told", told_U)


def labels(items: pd.DataFrame) -> list[str]:
    """Return how a user's text names each item: title, year and genres as far as they are known, else its id."""
    films = named(as_text(items))
    found = []
    for title, year, genres, item in zip(films["title"], films["year"], films["genres"], items["id"], strict=True):
        more = ", ".join(part for part in (year, genres) if part)
        found.append(f'"{title or item}"' + (f" ({more})" if more else ""))
    return found


def user_texts(users: Side, label_I: Sequence[str], split: Split, most: int) -> tuple[list[str], np.ndarray]:
    """Return the text of each user, and how many items it names, (U,)."""
    records = split.records
    chosen = np.flatnonzero(split.part_E == TRAIN)
    user_E = records.user_E[chosen]  # sorted, each user's records in the order of time
    start_U = np.searchsorted(user_E, np.arange(len(users.ids)))
    end_U = np.searchsorted(user_E, np.arange(len(users.ids)), "right")
    told_U = np.minimum(end_U - start_U, most).astype(np.int32)
    rating_E = records.columns.get("rating")
    texts = []
    for who, start, told in zip(described(users), start_U.tolist(), told_U.tolist(), strict=True):
        rows = chosen[start : start + told]
        seen = [label_I[item - 1] for item in records.item_E[rows].tolist()]
        if rating_E is not None:
            seen = [f"{name}, {rating:g} stars" for name, rating in zip(seen, rating_E[rows].tolist(), strict=True)]
        texts.append(f"{who}; history over time: {'; '.join(seen)}" if seen else "" if who == NOBODY else who)
    return texts, told_U


def described(users: Side) -> list[str]:
    """Return in words what the table tells of each user: its texts, else its attributes."""
    frame, table = users.known, users.table
    if table is None or not (table.text or table.attributes):
        return [NOBODY] * len(users.ids)
    names = table.text or table.attributes
    columns = [frame[name].astype(object).where(frame[name].notna(), "").astype(str) for name in names]
    form = "{1}" if table.text else "{0} {1}"
    rows = (
        [form.format(name, value) for name, value in zip(names, row, strict=True) if value]
        for row in zip(*columns, strict=True)
    )
    return [", ".join(row) or NOBODY for row in rows]
