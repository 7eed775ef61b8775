"""Reviews as GaVaMoE reads them, as a batch.

Letters: B reviews, R levels of ratings, L words of the longest text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rec.batch import Column, Columns
from rec.nn.language.words import NOTHING, Vocabulary
from rec.systems.review_writer import Reviews, words_of

COLUMNS = (
    Column("record", "int64", place=True),
    Column("user", "int64", entity="user", optional=True),
    Column("item", "int64", entity="item", optional=True),
    Column("rating", "float32", label=True),
    Column("text", "str", label=True),
    Column("feature", "str", label=True, optional=True),
    Column("opinion", "str", label=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewBatch(Reviews):
    """Reviews, with their places and levels."""

    record_B: Tensor
    """The place of the review among the records; -1 where it is none."""
    level_B: Tensor
    """The rating as a place among all levels."""
    word_BL: Tensor
    """The words of the text by their numbers, `NOTHING` where it has fewer; none where words are not asked for."""

    @property
    def word_count(self) -> int:
        """Return how many words the texts have together, where words are asked for."""
        return int((self.word_BL != NOTHING).sum())


def collated(rows: Columns, level_R: np.ndarray, vocabulary: Vocabulary | None = None) -> ReviewBatch:
    """Return the batch of rows of the view `sentences`, or of requests, which have no labels."""
    index = {name: torch.from_numpy(np.array(rows[name], np.int64)) for name in ("record", "user", "item")}
    rating_B = np.array(rows["rating"], np.float32)
    level_B = np.searchsorted(level_R, rating_B).clip(max=len(level_R) - 1)
    words = words_of(rows)
    none_BL = torch.zeros((len(level_B), 0), dtype=torch.int64)
    return ReviewBatch(
        record_B=index["record"],
        user_B=index["user"],
        item_B=index["item"],
        rating_B=torch.from_numpy(rating_B),
        level_B=torch.from_numpy(level_B),
        word_BL=none_BL if vocabulary is None else vocabulary.bags(words["text"]),
        **words,
    )
