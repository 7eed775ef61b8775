"""What is asked of knowledge for items: words and vectors of their facts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse

from rec.data.encoders import TextEncoder
from rec.data.modalities.passages import Facts
from rec.data.modalities.shard import Shard
from rec.data.modalities.words import Words

IDLE = ("item", "id", "poster_url", "runtime", "released", "rated", "year")
"""Facts that no passage is found by."""


class Questions:
    """What is asked of each item, made when it is needed."""

    def __init__(self, words: Words, encoder: TextEncoder, items: Sequence[Facts]) -> None:
        self.of, self.encoder, self.items = words, encoder, items
        self.known: dict[int, np.ndarray] = {}
        self.hashed: dict[int, list[int]] = {}

    def title(self, n: int) -> list[int]:
        """Return the words of an item's title."""
        return self.of.hashes(self.items[n].get("title", ""))

    def hashes(self, n: int) -> list[int]:
        """Return the words of an item's facts, each once, without those of the title: all of that title have them."""
        if n not in self.hashed:
            title = set(self.title(n))
            self.hashed[n] = [h for h in dict.fromkeys(self.of.hashes(_question(self.items[n]))) if h not in title]
        return self.hashed[n]

    def words(self, items: Sequence[int], shard: Shard) -> scipy.sparse.csr_matrix:
        """Return which words of a shard some items ask for, (items, words)."""
        hashes = [self.hashes(n) for n in items]
        flat = np.fromiter((h for row in hashes for h in row), np.uint64, sum(map(len, hashes)))
        row = np.repeat(np.arange(len(items)), [len(one) for one in hashes])
        place = shard.places(flat)
        there = place >= 0
        ones = np.ones(int(there.sum()), np.float32)
        return scipy.sparse.csr_matrix((ones, (row[there], place[there])), (len(items), len(shard.word)))

    def vectors(self, items: Sequence[int]) -> np.ndarray:
        """Return the vectors of some items' facts, float32."""
        new = [n for n in items if n not in self.known]
        if new:
            texts = [_question(self.items[n]) for n in new]
            self.known.update(zip(new, self.encoder.encode(texts), strict=True))
        width = len(next(iter(self.known.values()))) if self.known else 0
        return np.array([self.known[n] for n in items], np.float32).reshape(len(items), width)


def _question(item: Facts) -> str:
    return " ".join(value for name, value in item.items() if name not in IDLE and value)
