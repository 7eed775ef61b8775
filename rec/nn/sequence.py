"""The sequence encoder on packed rows: blocks of SASRec, or of HSTU.

Letters: N rows, D width, H heads. Source: Kang and McAuley 2018; Zhai et al. 2024.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rec.moe.config import MixtureConfig
from rec.moe.layer import Mixed, MixtureOfExperts, layers_of
from rec.nn.dropout import Dropout
from rec.nn.hstu import HSTUBlock
from rec.nn.packed import Layout, causal_attention
from rec.seeds import derive

BlockForm = Literal["pre_norm", "published", "hstu"]


class SequenceEncoder(nn.Module):
    """Stack of causal self-attention blocks and a last layer norm."""

    def __init__(
        self,
        *,
        width: int,
        blocks: int,
        heads: int,
        feedforward: int,
        dropout: float,
        form: BlockForm,
        max_length: int,
        mixture: MixtureConfig | None = None,
        checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        kind = PreNormBlock if form == "pre_norm" else PublishedBlock
        self.blocks = nn.ModuleList(
            HSTUBlock(width, heads, dropout, max_length) if form == "hstu" else kind(width, heads, feedforward, dropout)
            for _ in range(blocks)
        )
        if mixture is not None and mixture.experts:
            for number, block in enumerate(self.blocks):
                layer = mixture.layer(width, feedforward, derive(seed, "experts", number))
                block.feedforward = MixedFeedForward(layer, dropout)
        self.norm = nn.LayerNorm(width, eps=1e-8)

    def forward(self, x_ND: Tensor, where: Layout) -> tuple[Tensor, list[Mixed]]:
        """Return the state after each row, (N, D), and what the blocks' mixture layers did."""
        mixed: list[Mixed] = []
        for block in self.blocks:
            if self.checkpointing and self.training:
                x_ND, own = sparing(block, x_ND, where)
                mixed += own
            else:
                x_ND = block(x_ND, where, mixed)
        return self.norm(x_ND), mixed


def sparing(block: nn.Module, x_ND: Tensor, where: Layout) -> tuple[Tensor, list[Mixed]]:
    """Return what a block gives, (N, D), and its mixture layer; its input alone is kept, a backward computes again."""
    passes: list[list[Mixed]] = []

    def once(x_ND: Tensor) -> Tensor:
        layers = [layer for _, layer in layers_of(block)]
        for layer in layers:
            layer.repeating = bool(passes)
        passes.append([])
        y_ND: Tensor = block(x_ND, where, passes[-1])
        for layer in layers:
            layer.repeating = False
        return y_ND

    # Ranks whose experts are spread send messages while they compute again: all do so to the end of a block.
    y_ND: Tensor = checkpoint(once, x_ND, use_reentrant=False, early_stop=False)
    return y_ND, passes[0]


class Attention(nn.Module):
    """Causal multi-head attention."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide width ({width}), got {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        for linear in (self.query, self.key_value, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query_ND: Tensor, x_ND: Tensor, where: Layout) -> Tensor:
        """Return the attention of `query_ND` over `x_ND`, (N, D)."""
        shape = (len(x_ND), self.heads, -1)
        q_NHD = self.query(query_ND).view(shape)
        k_ND, v_ND = self.key_value(x_ND).chunk(2, -1)
        mixed = causal_attention(q_NHD, k_ND.reshape(shape), v_ND.reshape(shape), where)
        out_ND: Tensor = self.dropout(self.out(mixed.reshape(len(x_ND), -1)))
        return out_ND


class SequenceFeedForward(nn.Module):
    """Two linear layers with dropout after each."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout_up, self.dropout_down = Dropout(dropout), Dropout(dropout)

    def forward(self, x_ND: Tensor, mixed: list[Mixed]) -> Tensor:
        """Return the transformed rows, (N, D)."""
        hidden = torch.relu(self.dropout_up(self.up(x_ND)))
        out_ND: Tensor = self.dropout_down(self.down(hidden))
        return out_ND


class MixedFeedForward(nn.Module):
    """A mixture of experts in the place of the two linear layers."""

    def __init__(self, layer: MixtureOfExperts, dropout: float) -> None:
        super().__init__()
        self.layer, self.dropout = layer, Dropout(dropout)

    def forward(self, x_ND: Tensor, mixed: list[Mixed]) -> Tensor:
        """Return the transformed rows, (N, D), and add what the layer did to `mixed`."""
        mixed.append(self.layer(x_ND))
        out_ND: Tensor = self.dropout(mixed[-1].y_ND)
        return out_ND


class PreNormBlock(nn.Module):
    """Normalise, transform, add: the form that trains most steadily."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=1e-8)
        self.attention = Attention(width, heads, dropout)
        self.norm_feedforward = nn.LayerNorm(width, eps=1e-8)
        self.feedforward: nn.Module = SequenceFeedForward(width, feedforward, dropout)

    def forward(self, x_ND: Tensor, where: Layout, mixed: list[Mixed]) -> Tensor:
        """Return the rows after this block, (N, D)."""
        y_ND = self.norm_attention(x_ND)
        x_ND = x_ND + self.attention(y_ND, y_ND, where)
        out_ND: Tensor = x_ND + self.feedforward(self.norm_feedforward(x_ND), mixed)
        return out_ND


class PublishedBlock(PreNormBlock):
    """The published form: only the query is normalised, and the normalised query is what is added to."""

    def forward(self, x_ND: Tensor, where: Layout, mixed: list[Mixed]) -> Tensor:
        """Return the rows after this block, (N, D)."""
        query_ND = self.norm_attention(x_ND)
        x_ND = self.norm_feedforward(query_ND + self.attention(query_ND, x_ND, where))
        out_ND: Tensor = x_ND + self.feedforward(x_ND, mixed)
        return out_ND
