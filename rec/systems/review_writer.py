"""What systems share that write and rate reviews: rows of the view `sentences`, and what a review tells.

Letters: B reviews, N tokens of their texts, W words of a vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rec.batch import Batch, Columns
from rec.data.views.sentences import texts_of
from rec.systems.capabilities import Rater, Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviews(Batch):
    """Some pairs of user and item, with how they were rated and what was written."""

    user_B: Tensor
    """-1 where a user is not known."""
    item_B: Tensor
    rating_B: Tensor
    text: tuple[str, ...]
    feature: tuple[str, ...]
    opinion: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of reviews."""
        return len(self.user_B)

    def taken(self, places: Sequence[int]) -> Self:
        """Return some of the reviews, in this order."""
        index_B = torch.tensor(list(places), dtype=torch.int64, device=self.user_B.device)
        found: dict[str, Any] = {}
        for value in fields(self):
            whole = getattr(self, value.name)
            part = whole[index_B] if isinstance(whole, Tensor) else tuple(whole[place] for place in places)
            found[value.name] = part
        return replace(self, **found)

    @property
    def pairs(self) -> list[str]:
        """A name of each pair, which what is drawn for it follows from."""
        return [f"{user}/{item}" for user, item in zip(self.user_B.tolist(), self.item_B.tolist(), strict=True)]


B = TypeVar("B", bound=Reviews)
M = TypeVar("M", bound=nn.Module)


def words_of(rows: Columns) -> dict[str, tuple[str, ...]]:
    """Return text, feature and opinion of rows, "" where there is none, by the names of `Reviews`."""
    return {name: tuple(str(value or "") for value in rows[name]) for name in ("text", "feature", "opinion")}


def nll_of_texts(score_NW: Tensor, target_N: Tensor, tokens_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return the negative log likelihood of each text in nats, float64, and its tokens, int64, (B,) each.

    Args:
        score_NW: Of each word of the vocabulary, for the N tokens of all texts, one text after the other.
        target_N: Which of them it is.
        tokens_B: Tokens of each text; they add up to N.
    """
    nll_N = nn.functional.cross_entropy(score_NW.float(), target_N, reduction="none").double()
    owner_N = torch.arange(len(tokens_B), device=tokens_B.device).repeat_interleave(tokens_B)
    return nll_N.new_zeros(len(tokens_B)).index_add_(0, owner_N, nll_N), tokens_B


class ReviewWriter(Writer[B, M], Rater[B, M]):
    """The truth that a review tells, for the tasks of writing and rating.

    A system names the tables `sentence_features` and `sentence_opinions` in its `table_names`.
    """

    static: Mapping[str, np.ndarray]

    def references(self, batch: B) -> list[str]:
        """Return what was written."""
        return list(batch.text)

    def features(self, batch: B) -> list[str]:
        """Return the feature that each text is about."""
        return list(batch.feature)

    def opinions(self, batch: B) -> list[str]:
        """Return what each text says of its feature."""
        return list(batch.opinion)

    def all_features(self) -> Collection[str]:
        """Return every feature of the data set."""
        return self._known["feature"]

    def all_opinions(self) -> Collection[str]:
        """Return every opinion of the data set."""
        return self._known["opinion"]

    @cached_property
    def _known(self) -> dict[str, list[str]]:
        return {name: texts_of(self.static[f"sentence_{name}s"]) for name in ("feature", "opinion")}

    def written(self, batch: B) -> Mapping[str, Tensor]:
        """Return users and items."""
        return {"user": batch.user_B, "item": batch.item_B}

    def rated(self, batch: B) -> Mapping[str, Tensor]:
        """Return users and items."""
        return self.written(batch)

    def given_ratings(self, batch: B) -> Tensor:
        """Return the rating that was given, (B,)."""
        return batch.rating_B
