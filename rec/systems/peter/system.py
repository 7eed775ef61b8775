"""PETER: writes what a user would say of an item and rates it, from their ids and, as PETER+, from the feature.

Letters: B examples, N words of all texts with their ends, W words of the vocabulary.
Source: Li, Zhang and Chen 2021. Departures: words are those of training alone, none is written that is not known;
Adam in the place of gradient descent whose rate is quartered; ratings start in the middle of their scale; a user or an
item that is not known is the mean of those that are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rec.batch import Column, Columns
from rec.data.views.sentences import as_table, texts_of
from rec.evaluation.tasks.rating import Rating
from rec.evaluation.tasks.writing import Writing
from rec.nn.decoding import write as write_texts
from rec.nn.language.words import END, NOTHING, Vocabulary
from rec.systems.api import System
from rec.systems.capabilities import Decoding, Truth
from rec.systems.peter.config import PETERConfig
from rec.systems.peter.model import PeterBatch, PETERModel, PeterOutput
from rec.systems.review_writer import ReviewWriter, nll_of_texts, words_of
from rec.terms import Term

WORDS = PETERConfig().words


class PETER(System[PeterBatch, PETERModel], ReviewWriter[PeterBatch, PETERModel]):
    """Writes what a user would say of an item, and rates it."""

    Config = PETERConfig
    config: PETERConfig
    columns = (
        Column("user", "int64", entity="user"),
        Column("item", "int64", entity="item"),
        Column("rating", "float32", label=True),
        Column("text", "str", label=True),
        Column("feature", "str", label=True),
        Column("opinion", "str", label=True),
    )
    tables = ("user_count", "item_count", "sentence_words", "sentence_features", "sentence_opinions", "rating_scale")
    view = "sentences"
    tasks = (Writing(decoding=Decoding(max_tokens=WORDS), most_words=WORDS), Rating())
    loss_terms: ClassVar[Mapping[str, str]] = {
        "text_nll": "negative logarithm of the probability of a word",
        "context_nll": "negative logarithm of the probability of a word, whatever its place",
        "rating": "squared error of ratings",
    }

    def __init__(self, config: PETERConfig, tables: Any, seed: int = 0) -> None:
        super().__init__(config, tables, seed)
        writing = Writing(decoding=Decoding(max_tokens=config.words), most_words=config.words)
        self.tasks = (writing, Rating())
        self.vocabulary = Vocabulary(texts_of(tables["sentence_words"]), config.vocabulary)

    @classmethod
    def columns_for(cls, config: Any) -> tuple[Column, ...]:
        """Return the columns; the feature is told by requests where it is given."""
        return tuple(replace(c, label=c.label and not (config.feature and c.name == "feature")) for c in cls.columns)

    def model(self) -> PETERModel:
        """Return a freshly initialised model."""
        return PETERModel(
            self.config,
            users=len(self.static["user_count"]),
            items=len(self.static["item_count"]),
            words=len(self.vocabulary),
            scale=self.scale(),
        )

    def collate(self, rows: Columns) -> PeterBatch:
        """Return the batch for these rows; labels may be empty."""
        words = words_of(rows)
        return PeterBatch(
            user_B=torch.tensor(np.asarray(rows["user"], np.int64)),
            item_B=torch.tensor(np.asarray(rows["item"], np.int64)),
            feature_B=self.vocabulary.numbers(words["feature"]),
            rating_B=torch.tensor(np.asarray(rows["rating"], np.float32)),
            word_BT=self.vocabulary.encoded(words["text"], self.config.words),
            **words,
        )

    def lengths(self, rows: Columns) -> np.ndarray:
        """Return how many words each text has, with its end."""
        word_BT = self.vocabulary.encoded(words_of(rows)["text"], self.config.words)
        return (word_BT != NOTHING).sum(1).numpy()

    def loss(self, model: Callable[[PeterBatch], Any], batch: PeterBatch) -> dict[str, Term]:
        """Return the terms of the next word, of a text's words in any order, and of ratings."""
        seen: PeterOutput = model(batch)
        config, word_N = self.config, batch.word_BT[batch.word_BT != NOTHING]
        terms = {"text_nll": Term(cross_entropy(seen.score_NW.float(), word_N, reduction="sum"), len(word_N))}
        if config.context_weight:
            inside_BT = (batch.word_BT != NOTHING) & (batch.word_BT != END)
            told_BT = -seen.context_BW.float().log_softmax(1).gather(1, batch.word_BT.clamp(min=0))
            terms["context_nll"] = Term(told_BT[inside_BT].sum(), int(inside_BT.sum()), config.context_weight)
        if config.rating_weight:
            error_B = seen.rating_B.float() - batch.rating_B
            terms["rating"] = Term((error_B**2).sum(), len(batch), config.rating_weight)
        return terms

    def write(
        self,
        module: PETERModel,
        batch: PeterBatch,
        decoding: Decoding,
        *,
        all_done: Callable[[bool], bool] = bool,
        heard: Callable[[Sequence[str]], None] | None = None,
    ) -> list[str]:
        """Return the text of each example; what is drawn depends on the pair, not on its company."""
        return write_texts(
            module,
            batch,
            replace(decoding, max_tokens=min(decoding.max_tokens, self.config.words)),
            names=batch.pairs,
            end=END,
            spell=self.vocabulary.spelled,
            all_done=all_done,
            heard=heard,
        )

    def nll(self, module: PETERModel, batch: PeterBatch) -> tuple[Tensor, Tensor]:
        """Return the negative log likelihood of each text, and its words with the end, as far as they are scored."""
        there_BT = batch.word_BT != NOTHING
        return nll_of_texts(module(batch).score_NW, batch.word_BT[there_BT], there_BT.sum(1))

    def truth_given(self) -> Collection[Truth]:
        """Return the feature where it is told."""
        told: tuple[Truth, ...] = ("feature",)
        return told if self.config.feature else ()

    def ratings(self, module: PETERModel, batch: PeterBatch) -> Tensor:
        """Return the predicted rating of each pair, (B,)."""
        return module.ratings(batch).float()

    def scale(self) -> tuple[float, float]:
        """Return the smallest and the largest rating of the data set."""
        lowest, highest = np.asarray(self.static["rating_scale"]).tolist()
        return lowest, highest

    @classmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows and tables that fit the declared columns."""
        words, users, items = ["the", "sound", "price", "is", "good", "poor", "."], 7, 9
        columns: dict[str, Any] = {
            "user": rng.integers(0, users, rows),
            "item": rng.integers(0, items, rows),
            "rating": rng.integers(1, 6, rows).astype(np.float32),
            "text": np.array([" ".join(rng.choice(words, 2 + row % 6)) for row in range(rows)], dtype=object),
            "feature": rng.choice(np.array(["sound", "price"], dtype=object), rows),
            "opinion": rng.choice(np.array(["good", "poor"], dtype=object), rows),
        }
        tables = {
            "user_count": np.bincount(columns["user"], minlength=users),
            "item_count": np.bincount(columns["item"], minlength=items),
            "sentence_words": as_table(words),
            "sentence_features": as_table(["price", "sound"]),
            "sentence_opinions": as_table(["good", "poor"]),
            "rating_scale": np.array([1, 5], np.float32),
        }
        return columns, tables
