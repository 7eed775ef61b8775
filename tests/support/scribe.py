"""A small system that writes and rates, defined outside the package: words follow from user, item and place alone.

Letters: B examples, T places of a text, W words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from rec.batch import Batch, Column, Columns
from rec.data.prepared import Prepared
from rec.evaluation.tasks.rating import Rating
from rec.evaluation.tasks.writing import Writing
from rec.seeds import derive
from rec.strict import Strict
from rec.systems.api import System
from rec.systems.capabilities import Decoding, Rater, Writer
from rec.terms import Term
from tests.support.prepared import write_prepared

USERS, ITEMS, MOST = 12, 9, 10
WORDS = ("<eos>", *"a the plain sweet salty soup cake bread was is good bad".split())
TOML = """
system = "tests.support.scribe:Scribe"
out = "run"

[data]
root = "data"

[train]
batch_size = 16
learning_rate = 0.05
"""


def write_data(root: str) -> Prepared:
    """Write some reviews: item decides the words, user the rating."""
    rows = []
    for user in range(USERS):
        for item in range(ITEMS):
            text = f"the {WORDS[3 + item % 3]} {WORDS[6 + item // 3]} was {WORDS[11 + user % 2]}"
            rows.append({"user": user, "item": item, "tone": "short", "rating": float(1 + user % 4), "text": text})
    table = pa.Table.from_pylist(rows)
    return write_prepared(
        root,
        splits={"train": table, "val": table.slice(0, 20), "test": table.slice(20, 20)},
        entities={
            "user": (pa.table({"id": [f"user {n}" for n in range(USERS)]}), 0),
            "item": (pa.table({"id": np.arange(100, 100 + ITEMS), "name": [f"Dish {n}" for n in range(ITEMS)]}), 0),
        },
        tables={},
        config={},
    )


class Config(Strict):
    """The keys of `[model]`."""

    width: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviews(Batch):
    """Pairs of user and item, with what was written and how it was rated."""

    user_B: Tensor
    item_B: Tensor
    rating_B: Tensor
    word_BT: Tensor
    text: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.user_B)


class ScribeModel(nn.Module):
    """Scores of the word at each place, and a rating."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.user, self.item, self.place = (nn.Embedding(n, width) for n in (USERS, ITEMS, MOST))
        self.word = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, len(WORDS)))
        self.rate = nn.Linear(width, 1)

    def forward(self, batch: Reviews) -> tuple[Tensor, Tensor]:
        """Return the words' scores, (B, T, W), and the ratings, (B,)."""
        pair_BD = self.user(batch.user_B) + self.item(batch.item_B)
        return self.word(pair_BD[:, None] + self.place.weight), self.rate(pair_BD)[:, 0]


class Scribe(System[Reviews, ScribeModel], Writer[Reviews, ScribeModel], Rater[Reviews, ScribeModel]):
    """Writes what a user would say of an item, and rates it."""

    Config = Config
    columns = (
        Column("user", "int64", entity="user"),
        Column("item", "int64", entity="item"),
        Column("tone", "str", optional=True),
        Column("rating", "float32", label=True),
        Column("text", "str", label=True),
    )
    tasks = (Writing(decoding=Decoding(max_tokens=MOST)), Rating())
    ways = ("temperature",)

    def model(self) -> ScribeModel:
        """Return a freshly initialised model."""
        torch.manual_seed(self.seed)
        return ScribeModel(self.config.width)

    def collate(self, rows: Columns) -> Reviews:
        """Return the batch for these rows."""
        texts = tuple(str(text) for text in rows["text"])
        word_BT = torch.zeros(len(texts), MOST, dtype=torch.int64)
        for row, text in enumerate(texts):
            found = [WORDS.index(word) for word in text.split()][:MOST]
            word_BT[row, : len(found)] = torch.tensor(found, dtype=torch.int64)
        return Reviews(
            user_B=torch.tensor(np.asarray(rows["user"], np.int64)),
            item_B=torch.tensor(np.asarray(rows["item"], np.int64)),
            rating_B=torch.tensor(np.asarray(rows["rating"], np.float32)),
            word_BT=word_BT,
            text=texts,
        )

    def loss(self, model: Callable[[Reviews], Any], batch: Reviews) -> dict[str, Term]:
        """Return the loss of words and of ratings."""
        score_BTW, rating_B = model(batch)
        words = nn.functional.cross_entropy(score_BTW.flatten(0, 1), batch.word_BT.flatten(), reduction="sum")
        return {
            "words": Term(words, batch.word_BT.numel()),
            "rating": Term(((rating_B - batch.rating_B) ** 2).sum(), len(batch)),
        }

    def ratings(self, module: ScribeModel, batch: Reviews) -> Tensor:
        """Return the ratings."""
        return module(batch)[1]

    def given_ratings(self, batch: Reviews) -> Tensor:
        """Return the ratings that were given."""
        return batch.rating_B

    def scale(self) -> tuple[float, float]:
        """Return the smallest and the largest rating."""
        return 1.0, 4.0

    def write(
        self,
        module: ScribeModel,
        batch: Reviews,
        decoding: Decoding,
        *,
        all_done: Callable[[bool], bool] = bool,
        heard: Callable[[Sequence[str]], None] | None = None,
    ) -> list[str]:
        """Return the texts; what is drawn depends on the pair, not on its company."""
        score_BTW = module(batch)[0]
        pairs = zip(batch.user_B.tolist(), batch.item_B.tolist(), strict=True)
        chance = [torch.Generator().manual_seed(derive(decoding.seed, "write", *pair)) for pair in pairs]
        ended, texts = [False] * len(batch), [""] * len(batch)
        for place in range(min(decoding.max_tokens, MOST)):
            score_BW = score_BTW[:, place]
            if decoding.temperature > 0:
                noise = [-torch.empty(len(WORDS)).exponential_(generator=one).log() for one in chance]
                score_BW = score_BW / decoding.temperature + torch.stack(noise)
            pieces = []
            for row, word in enumerate(score_BW.argmax(1).tolist()):
                ended[row] = ended[row] or word == 0
                pieces.append("" if ended[row] else f"{WORDS[word]} ")
                texts[row] += pieces[-1]
            if heard is not None:
                heard(pieces)
            if all_done(all(ended)):
                break
        return [text.strip() for text in texts]

    def references(self, batch: Reviews) -> list[str]:
        """Return what was written."""
        return list(batch.text)

    @classmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows."""
        columns = {
            "user": rng.integers(0, USERS, rows),
            "item": rng.integers(0, ITEMS, rows),
            "tone": ["short"] * rows,
            "rating": rng.uniform(1, 5, rows).astype(np.float32),
            "text": [" ".join(rng.choice(WORDS[1:], 4)) for _ in range(rows)],
        }
        return columns, {}
