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
        found = [[*(self.number.get(word, UNKNOWN) for word in text.split()[:most]), END] for text in texts]
        word_BT = np.full((len(found), max(map(len, found), default=1)), NOTHING, np.int64)
        for row, numbers in enumerate(found):
            word_BT[row, : len(numbers)] = numbers
        return torch.from_numpy(word_BT)

    def spelled(self, numbers: Sequence[int]) -> str:
        """Return the text of some numbers."""
        return " ".join(self.words[number] for number in numbers)
