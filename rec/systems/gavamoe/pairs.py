"""The encoder of pairs of user and item: what is known of both, as a latent and as a rating.

Letters: B pairs, U users, I items, F width of a vector, T vectors of a pair, H heads,
X width of a head, J positions that are looked at, Z width of a latent, R levels of ratings,
W words, M width of an item's vector from outside.
Source: GaVaMoE (arXiv 2410.11841), stage 1. Each pair is encoded alone: the published code attends across the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rec.nn.dropout import Dropout
from rec.systems.gavamoe.config import PairsConfig

USER, ITEM = "user", "item"
START = 0.2
"""Vectors of users and items start even in between minus and plus this."""


@dataclass(frozen=True, slots=True)
class Latent:
    """What the encoder says of pairs: a normal distribution for each."""

    mean_BZ: Tensor
    log_variance_BZ: Tensor

    def drawn(self) -> Tensor:
        """Return a latent of each pair, (B, Z)."""
        return self.mean_BZ + (0.5 * self.log_variance_BZ).exp() * torch.randn_like(self.mean_BZ)


class PairEncoder(nn.Module):
    """Encodes pairs, and tells the rating from a latent; -1 stands for a user or an item that is not known."""

    def __init__(
        self,
        config: PairsConfig,
        users: int,
        items: int,
        features: Mapping[str, Tensor],
        seed: int,
        *,
        levels: int = 5,
        words: int = 0,
        seen: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Build the encoder.

        Args:
            config: Its keys.
            users: How many there are.
            items: How many there are.
            features: Further vectors of items, (I, M) each, by modality.
            seed: Of what it starts with.
            levels: Different ratings.
            words: Different words that a latent tells, none: it tells none.
            seen: Which users (U,) and items (I,) training has something of, bool; None: all. Others count as unknown.
        """
        super().__init__()
        self.config = config
        for name, count in ((USER, users), (ITEM, items)):
            there = torch.ones(count) if seen is None else seen[name]
            self.register_buffer(f"seen_{name}", there.bool(), persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.table_user, self.table_item = _table(users, config), _table(items, config)
            self.project = nn.ModuleDict()
            for name, vector_IM in features.items():
                self.register_buffer(f"vectors_{name}", vector_IM.float(), persistent=False)
                self.project[name] = nn.Linear(vector_IM.shape[1], config.embedding)
            self.layers = nn.ModuleList(PairBlock(config) for _ in range(config.layers))
            self.drop = Dropout(config.dropout)
            self.mean = nn.Linear(config.embedding, config.latent)
            self.log_variance = nn.Linear(config.embedding, config.latent)
            self.bias_user, self.bias_item = _biases(users), _biases(items)
            half = max(config.hidden // 2, 1)
            self.decoder = nn.Sequential(
                nn.Linear(config.latent, config.hidden), nn.GELU(), nn.Linear(config.hidden, half), nn.GELU(),
                nn.Linear(half, levels),
            )  # fmt: skip
            if words:
                self.word_decoder = nn.Sequential(
                    nn.Linear(config.latent, config.hidden), nn.GELU(), nn.Linear(config.hidden, words)
                )

    def forward(self, user_B: Tensor, item_B: Tensor) -> Latent:
        """Return the latents of pairs; a pair's own depends on no other."""
        if self.training and self.config.unknown_share:
            user_B, item_B = self._some_unknown(user_B), self._some_unknown(item_B)
        vectors = [self.user_vector(user_B), self.item_vector(item_B)]
        vectors += [self.project[name](self._vectors(name, item_B)) for name in self.project]
        state_BTF = self.drop(torch.stack(vectors, 1))
        for layer in self.layers:
            state_BTF = layer(state_BTF)
        state_BF = state_BTF.mean(1)
        return Latent(self.mean(state_BF), self.log_variance(state_BF))

    def user_vector(self, user_B: Tensor) -> Tensor:
        """Return the vectors of users, (B, F)."""
        return _row(self.table_user, self.known(USER, user_B))

    def item_vector(self, item_B: Tensor) -> Tensor:
        """Return the vectors of items, (B, F)."""
        return _row(self.table_item, self.known(ITEM, item_B))

    def bias(self, user_B: Tensor, item_B: Tensor) -> Tensor:
        """Return how far the rating of a pair is moved up by who rates what, (B,)."""
        user_B1 = _row(self.bias_user, self.known(USER, user_B))
        return (user_B1 + _row(self.bias_item, self.known(ITEM, item_B)))[:, 0]

    def known(self, entity: str, index_B: Tensor) -> Tensor:
        """Return indices of members, -1 for those that training has nothing of, (B,)."""
        seen_X: Tensor = getattr(self, f"seen_{entity}")
        return torch.where((index_B >= 0) & seen_X[index_B.clamp(min=0)], index_B, -1)

    def strange(self, user_B: Tensor, item_B: Tensor) -> Tensor:
        """Return which pairs cannot be told apart by what is known of them, (B,) bool."""
        unknown_B = self.known(USER, user_B) < 0
        return unknown_B | ((item_B if len(self.project) else self.known(ITEM, item_B)) < 0)

    def rating_scores(self, z_BZ: Tensor) -> Tensor:
        """Return the score of each level of the rating, (B, R), from latents."""
        score_BR: Tensor = self.decoder(z_BZ)
        return score_BR

    def word_scores(self, z_BZ: Tensor) -> Tensor:
        """Return the score of each word, (B, W), from latents."""
        score_BW: Tensor = self.word_decoder(z_BZ)
        return score_BW

    def _vectors(self, name: str, item_B: Tensor) -> Tensor:
        table_IM: Tensor = getattr(self, f"vectors_{name}")
        return table_IM[item_B.clamp(min=0)] * (item_B >= 0)[:, None]

    def _some_unknown(self, index_B: Tensor) -> Tensor:
        share_B = torch.rand(len(index_B), device=index_B.device)
        return index_B.masked_fill(share_B < self.config.unknown_share, -1)


class PairBlock(nn.Module):
    """Attention among the few vectors of a pair, then a feed-forward network, each with its norm behind it."""

    def __init__(self, config: PairsConfig) -> None:
        super().__init__()
        width = config.embedding
        self.heads = config.heads
        self.project, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inside, self.outside = nn.Linear(width, config.hidden), nn.Linear(config.hidden, width)
        self.after_attention, self.after_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = Dropout(config.dropout)

    def forward(self, state_BTF: Tensor) -> Tensor:
        """Return the next states, (B, T, F)."""
        query_BTF, key_BTF, value_BTF = self.project(state_BTF).chunk(3, 2)
        mixed_BTF = attended(query_BTF, key_BTF, value_BTF, self.heads)
        state_BTF = self.after_attention(state_BTF + self.drop(self.join(mixed_BTF)))
        inner = self.drop(nn.functional.relu(self.inside(state_BTF)))
        found: Tensor = self.after_network(state_BTF + self.drop(self.outside(inner)))
        return found


def attended(query_BTF: Tensor, key_BTF: Tensor, value_BTF: Tensor, heads: int) -> Tensor:
    """Return what softmax attention of some heads takes from the few positions of each example, (B, T, F).

    A loop over positions of even vectors: kernels of attention, made for long texts, take twice as long on a CPU.
    """
    shape = (*query_BTF.shape[:2], heads, -1)
    pairs = [(query_BTF * key_BF[:, None]).view(shape).sum(3) for key_BF in key_BTF.unbind(1)]
    weight_JBTH = (torch.stack(pairs) * (query_BTF.shape[2] // heads) ** -0.5).softmax(0)
    parts = [
        weight_BTH[..., None] * value_BF.view(len(value_BF), 1, heads, -1)
        for weight_BTH, value_BF in zip(weight_JBTH, value_BTF.unbind(1), strict=True)
    ]
    mixed_BTHX = parts[0]
    for part in parts[1:]:
        mixed_BTHX = mixed_BTHX + part
    return mixed_BTHX.flatten(2)


def _table(count: int, config: PairsConfig) -> nn.Embedding:
    """Return a table of vectors; the row behind the last is of the unknown."""
    table = nn.Embedding(count + 1, config.embedding)
    nn.init.uniform_(table.weight, -START, START)
    with torch.no_grad():
        table.weight[-1] = 0
    return table


def _biases(count: int) -> nn.Embedding:
    table = nn.Embedding(count + 1, 1)
    nn.init.zeros_(table.weight)
    return table


def _row(table: nn.Embedding, index_B: Tensor) -> Tensor:
    row_BF: Tensor = table(index_B.remainder(table.num_embeddings))  # -1 is the last one
    return row_BF
