"""PETER's transformer: user, item, the feature where it is told, then the words of a text.

Letters: B examples, R rows of a cache, T positions, N words of all texts with their ends, W words of the vocabulary,
U users, I items, H heads, E width of a head, D width.
Source: Li, Zhang and Chen 2021 (PETER), section 3; written from its formulas. Blocks are those of Vaswani et al. 2017
(normed behind each part, ReLU), positions their sines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rec.nn.dropout import Dropout
from rec.nn.language.words import NOTHING, START, UNWRITTEN
from rec.systems.peter.config import PETERConfig
from rec.systems.review_writer import Reviews

SPREAD = 0.1
"""Vectors of users, items and words, and what turns states into words, start uniform between -0.1 and 0.1."""
USER, ITEM = 0, 1
"""Positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeterBatch(Reviews):
    """Reviews, with their words as numbers."""

    feature_B: Tensor
    """The feature as a word of the vocabulary."""
    word_BT: Tensor
    """The words that were written, the end behind them, `NOTHING` where a text is shorter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeterOutput:
    """What a pass over a batch gives."""

    score_NW: Tensor
    """Of each word of the texts and of their ends."""
    context_BW: Tensor
    """Of the words of each text, in any order."""
    rating_B: Tensor


@dataclass(slots=True)
class Cache:
    """Keys and values of all that was read, (R, H, T, E) each for each layer."""

    key: list[Tensor]
    value: list[Tensor]

    @property
    def length(self) -> int:
        """How many positions were read."""
        return self.key[0].shape[2]

    def reorder(self, row_R: Tensor) -> None:
        """Hold these rows, in this order."""
        self.key = [key.index_select(0, row_R) for key in self.key]
        self.value = [value.index_select(0, row_R) for value in self.value]


def peter_mask(length: int, device: torch.device | str = "cpu") -> Tensor:
    """Return which positions each one sees, bool (T, T): itself and those before it; the user sees the item too."""
    seen_TT = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    seen_TT[USER, ITEM] = True
    return seen_TT


def sines(length: int, width: int) -> Tensor:
    """Return the vectors of positions, (T, D): sines at even places, cosines at odd ones (Vaswani et al. 2017)."""
    rate_E = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle_TE = torch.arange(length)[:, None] * rate_E
    return torch.stack([angle_TE.sin(), angle_TE.cos()], 2).flatten(1)


class Block(nn.Module):
    """Attention, then a feed-forward network; each is added and then normed."""

    def __init__(self, config: PETERConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.share = config.heads, config.dropout
        self.read = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, config.hidden), nn.ReLU(), Dropout(config.dropout), nn.Linear(config.hidden, width)
        )
        self.dropout = Dropout(config.dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        nn.init.xavier_uniform_(self.read.weight)
        for linear in (self.read, self.out):
            nn.init.zeros_(linear.bias)

    def forward(self, x_RTD: Tensor, seen_TT: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        """Return the states, (R, T, D).

        Args:
            x_RTD: The states before.
            seen_TT: Which positions each one sees; None where it sees all that is in the cache, and itself.
            cache: Keys and values of what was read before, to which those of `x_RTD` are added; None keeps none.
            layer: The place of this block.
        """
        rows, length, width = x_RTD.shape
        q_RHTE, k_RHTE, v_RHTE = (
            self.read(x_RTD).view(rows, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        if cache is not None:
            if layer < len(cache.key):
                k_RHTE = torch.cat([cache.key[layer], k_RHTE], 2)
                v_RHTE = torch.cat([cache.value[layer], v_RHTE], 2)
                cache.key[layer], cache.value[layer] = k_RHTE, v_RHTE
            else:
                cache.key.append(k_RHTE)
                cache.value.append(v_RHTE)
        share = self.share if self.training else 0.0
        mixed_RHTE = functional.scaled_dot_product_attention(q_RHTE, k_RHTE, v_RHTE, seen_TT, dropout_p=share)
        mixed_RTD = self.out(mixed_RHTE.transpose(1, 2).reshape(rows, length, width))
        x_RTD = self.norms[0](x_RTD + self.dropout(mixed_RTD))
        after_RTD: Tensor = self.norms[1](x_RTD + self.dropout(self.feedforward(x_RTD)))
        return after_RTD


class PETERModel(nn.Module):
    """A rating at the user's position, a text's words in any order at the item's, and the next word at each word's."""

    def __init__(self, config: PETERConfig, *, users: int, items: int, words: int, scale: tuple[float, float]) -> None:
        super().__init__()
        width = config.width
        self.told = config.feature
        self.user, self.item, self.word = (nn.Embedding(count, width) for count in (users, items, words))
        self.position_TD: Tensor
        self.register_buffer("position_TD", sines(3 + self.told + config.words, width), persistent=False)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.rate = nn.Sequential(nn.Linear(width, width), nn.Sigmoid(), nn.Linear(width, 1))
        self.out = nn.Linear(width, words)
        rating = self.rate[2]
        assert isinstance(rating, nn.Linear)
        for part in (self.user, self.item, self.word, self.out, self.rate[0], rating):
            assert isinstance(part.weight, Tensor)
            nn.init.uniform_(part.weight, -SPREAD, SPREAD)
        nn.init.zeros_(self.out.bias)
        nn.init.constant_(rating.bias, sum(scale) / 2)

    def forward(self, batch: PeterBatch) -> PeterOutput:
        """Return the scores of each text's words, and the rating of each pair."""
        start_BPD = self.beginning(batch)
        written_BTD = self.word(batch.word_BT[:, :-1].clamp(min=0))
        x_BTD = torch.cat([start_BPD, written_BTD], 1)
        state_BTD = self.states(x_BTD, peter_mask(x_BTD.shape[1], x_BTD.device))
        state_ND = state_BTD[:, start_BPD.shape[1] - 1 :][batch.word_BT != NOTHING]
        return PeterOutput(
            score_NW=self.out(state_ND), context_BW=self.out(state_BTD[:, ITEM]), rating_B=self._rated(state_BTD)
        )

    def ratings(self, batch: PeterBatch) -> Tensor:
        """Return the rating of each pair, (B,), which no word changes."""
        x_BPD = self.beginning(batch)
        return self._rated(self.states(x_BPD, peter_mask(x_BPD.shape[1], x_BPD.device)))

    def start(self, batch: PeterBatch) -> tuple[Tensor, Cache]:
        """Read what comes before each text; return the scores of its first word, (B, W), and what was kept."""
        x_BPD, cache = self.beginning(batch), Cache([], [])
        state_BPD = self.states(x_BPD, peter_mask(x_BPD.shape[1], x_BPD.device), cache)
        return self._next(state_BPD), cache

    def step(self, token_R: Tensor, state: Cache) -> tuple[Tensor, Cache]:
        """Read one word of each text; return the scores of the next one, (R, W), and what was kept."""
        return self._next(self.states(self.word(token_R)[:, None], None, state)), state

    def beginning(self, batch: PeterBatch) -> Tensor:
        """Return the vectors before a text's words, (B, P, D): user, item, the feature where it is told, the start."""
        first_B = torch.full_like(batch.feature_B, START)
        words = [batch.feature_B, first_B] if self.told else [first_B]
        pair = (known_or_mean(self.user, batch.user_B), known_or_mean(self.item, batch.item_B))
        return torch.stack([*pair, *map(self.word, words)], 1)

    def states(self, x_RTD: Tensor, seen_TT: Tensor | None, cache: Cache | None = None) -> Tensor:
        """Return the states of vectors that stand behind what is in the cache, (R, T, D)."""
        first = cache.length if cache is not None and cache.key else 0
        place_TD = self.position_TD[first : first + x_RTD.shape[1]]
        x_RTD = self.dropout(x_RTD * math.sqrt(x_RTD.shape[2]) + place_TD)
        for layer, block in enumerate(self.blocks):
            x_RTD = block(x_RTD, seen_TT, cache, layer)
        return x_RTD

    def _rated(self, state_BTD: Tensor) -> Tensor:
        rating_B1: Tensor = self.rate(state_BTD[:, USER])
        return rating_B1[:, 0]

    def _next(self, state_RTD: Tensor) -> Tensor:
        score_RW: Tensor = self.out(state_RTD[:, -1]).float()
        score_RW[:, UNWRITTEN] = -torch.inf
        return score_RW


def known_or_mean(table: nn.Embedding, index_B: Tensor) -> Tensor:
    """Return the vector of each member, (B, D): that of one who is not known (-1) is the mean of all."""
    vector_BD: Tensor = table(index_B.clamp(min=0))
    unknown_B = index_B < 0
    return torch.where(unknown_B[:, None], table.weight.mean(0), vector_BD) if bool(unknown_B.any()) else vector_BD
