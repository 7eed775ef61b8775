"""Small models that are decoded in tests: chances that depend on the last word, and a random Llama with a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Last:
    """The last word of each row, and how many rows were held and read, by step."""

    word_R: Tensor
    held: list[int] = field(default_factory=list)

    def reorder(self, row_R: Tensor) -> None:
        self.word_R = self.word_R[row_R]


class Chain:
    """Scores of the next word by the last one, of their own for each start: (W, W) from a seed."""

    def __init__(self, words: int, seed: int, sharpness: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.score_WW = sharpness * torch.randn(words, words, generator=generator, dtype=torch.float64)
        self.rows: list[int] = []

    def start(self, batch: Tensor) -> tuple[Tensor, Last]:
        self.rows = [len(batch)]
        return self.score_WW[batch], Last(batch)

    def step(self, token_R: Tensor, state: Last) -> tuple[Tensor, Last]:
        assert len(token_R) == len(state.word_R)
        self.rows.append(len(token_R))
        state.word_R = token_R
        return self.score_WW[token_R], state


@dataclass
class Kept:
    """A cache of transformers with what of it is no padding, and how far each row has come."""

    cache: Any
    there_RT: Tensor

    def reorder(self, row_R: Tensor) -> None:
        self.cache.reorder_cache(row_R)
        self.there_RT = self.there_RT[row_R]


class Cached:
    """A causal model of transformers that keeps keys and values; prompts are padded on the left."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def start(self, batch: Sequence[Sequence[int]]) -> tuple[Tensor, Kept]:
        from transformers import DynamicCache

        word_BT, there_BT = padded(batch)
        return self._read(word_BT, Kept(DynamicCache(), there_BT[:, :0]), there_BT)

    def step(self, token_R: Tensor, state: Kept) -> tuple[Tensor, Kept]:
        return self._read(token_R[:, None], state, torch.ones_like(token_R[:, None]))

    def _read(self, word_RT: Tensor, state: Kept, there_RT: Tensor) -> tuple[Tensor, Kept]:
        state.there_RT = torch.cat([state.there_RT, there_RT], 1)
        place_RT = (state.there_RT.cumsum(1) - 1).clamp(min=0)[:, -word_RT.shape[1] :]
        found = self.model(
            input_ids=word_RT,
            attention_mask=state.there_RT,
            position_ids=place_RT,
            past_key_values=state.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return found.logits[:, -1], state


class Uncached:
    """The same, which reads everything again for each word."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def start(self, batch: Sequence[Sequence[int]]) -> tuple[Tensor, Whole]:
        return self._scores(state := Whole([list(words) for words in batch])), state

    def step(self, token_R: Tensor, state: Whole) -> tuple[Tensor, Whole]:
        state.words = [[*words, token] for words, token in zip(state.words, token_R.tolist(), strict=True)]
        return self._scores(state), state

    def _scores(self, state: Whole) -> Tensor:
        return torch.cat([self.model(input_ids=torch.tensor([words])).logits[:, -1] for words in state.words])


@dataclass
class Whole:
    """All words of each row."""

    words: list[list[int]]

    def reorder(self, row_R: Tensor) -> None:
        self.words = [list(self.words[row]) for row in row_R.tolist()]


def llama(words: int = 12, seed: int = 0, **changed: Any) -> Any:
    """Return a small random causal model; its words are spread so that few are equally probable."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": words,
        "max_position_embeddings": 128,
        "initializer_range": 0.4,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **changed})).eval()


def padded(batch: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return prompts with padding on their left, (B, T), and what is none, int64 (B, T)."""
    longest = max(map(len, batch))
    word_BT, there_BT = torch.zeros(2, len(batch), longest, dtype=torch.int64)
    for row, words in enumerate(batch):
        word_BT[row, longest - len(words) :] = torch.tensor(words)
        there_BT[row, longest - len(words) :] = 1
    return word_BT, there_BT
