"""Words and the numbers that stand for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

END, START, UNKNOWN = range(3)
"""What ends a text, what stands before one, and every word that is not known."""
UNWRITTEN = (START, UNKNOWN)
NOTHING = -1
"""In the place of words behind a text's end."""


class Vocabulary:
    """Words by their numbers, the most frequent first, behind three that are none."""

    def __init__(self, words: Sequence[str], most: int) -> None:
        self.words = ("<end>", "<start>", "<unknown>", *words[:most])
        self.number = {word: place + 3 for place, word in enumerate(words[:most])}

    def __len__(self) -> int:
        return len(self.words)

    def numbers(self, words: Sequence[str]) -> Tensor:
        """Return the number of each word, int64 (N,)."""
        return torch.tensor([self.number.get(word, UNKNOWN) for word in words], dtype=torch.int64)

    def encoded(self, texts: Sequence[str], most: int) -> Tensor:
        """Return the first words of each text and the end behind them, int64 (B, T), `NOTHING` where one is shorter."""
        return _padded([[*self._found(text)[:most], END] for text in texts])

    def bags(self, texts: Sequence[str]) -> Tensor:
        """Return all words of each text, int64 (B, T), `NOTHING` where one is shorter."""
        return _padded([self._found(text) for text in texts])

    def _found(self, text: str) -> list[int]:
        return [self.number.get(word, UNKNOWN) for word in text.split()]

    def spelled(self, numbers: Sequence[int]) -> str:
        """Return the text of some numbers."""
        return " ".join(self.words[number] for number in numbers)


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    word_BT = np.full((len(rows), max(map(len, rows), default=1)), NOTHING, np.int64)
    for row, numbers in enumerate(rows):
        word_BT[row, : len(numbers)] = numbers
    return torch.from_numpy(word_BT)
