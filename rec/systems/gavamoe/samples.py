"""Small random reviews and tables, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from rec.batch import Columns
from rec.data.encoders import learn_byte_tokenizer
from rec.data.views.sentences import as_table, words_by_count

USERS, ITEMS, WIDTH = 7, 9, 5
FEATURES = ("sound", "price", "build quality", "")


def sample(rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
    """Return reviews, some of a user or an item that training does not know, and the tables of their data set."""
    level_R = np.arange(1, 6, dtype=np.float32)
    user_B = np.where(np.arange(rows) % 6 == 5, -1, rng.integers(0, USERS, rows))
    item_B = rng.integers(0, ITEMS, rows)
    rating_B = rng.choice(level_R, rows)
    opinion = [("good", "bad", "")[row % 3] for row in range(rows)]
    feature = [FEATURES[row % len(FEATURES)] for row in range(rows)]
    columns: dict[str, Any] = {
        "record": np.arange(rows, dtype=np.int64), "user": user_B, "item": item_B, "rating": rating_B,
        "feature": feature, "opinion": opinion,
        "text": [f"the {name or 'thing'} is {word or 'there'}" for name, word in zip(feature, opinion, strict=True)],
    }  # fmt: skip
    tables = {
        "user_count": np.array([3] * (USERS - 1) + [0]), "item_count": np.array([2] * (ITEMS - 1) + [0]),
        "sentence_features": as_table(sorted(filter(None, FEATURES))), "sentence_opinions": as_table(["bad", "good"]),
        "sentence_words": as_table(words_by_count(pa.chunked_array([columns["text"]]))),
        "tokenizer": np.frombuffer(learn_byte_tokenizer(columns["text"], 300).encode(), np.uint8),
        "rating_level": level_R, "rating_count": np.array([1, 1, 2, 4, 9]),
        "item_text": rng.standard_normal((ITEMS, WIDTH)).astype(np.float32),
        "feature_image": rng.standard_normal((ITEMS, WIDTH)).astype(np.float32),
    }  # fmt: skip
    return columns, tables
