"""Reviews as GaVaMoE reads them, as a batch.

Letters: B reviews, R levels of ratings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rec.batch import Batch, Column, Columns

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
class ReviewBatch(Batch):
    """Some pairs of user and item, with how they were rated and what was written."""

    record_B: Tensor
    """The place of the review among the records; -1 where it is none."""
    user_B: Tensor
    """-1 where a user is in no table."""
    item_B: Tensor
    rating_B: Tensor
    level_B: Tensor
    """The rating as a place among all levels."""
    text: tuple[str, ...]
    feature: tuple[str, ...]
    opinion: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of reviews."""
        return len(self.user_B)


def collated(rows: Columns, level_R: np.ndarray) -> ReviewBatch:
    """Return the batch of rows of the view `sentences`, or of requests, which have no labels."""
    index = {name: torch.from_numpy(np.array(rows[name], np.int64)) for name in ("record", "user", "item")}
    rating_B = np.array(rows["rating"], np.float32)
    level_B = np.searchsorted(level_R, rating_B).clip(max=len(level_R) - 1)
    text, feature, opinion = (
        tuple(str(value or "") for value in rows[name]) for name in ("text", "feature", "opinion")
    )
    return ReviewBatch(
        record_B=index["record"],
        user_B=index["user"],
        item_B=index["item"],
        rating_B=torch.from_numpy(rating_B),
        level_B=torch.from_numpy(level_B),
        text=text,
        feature=feature,
        opinion=opinion,
    )
