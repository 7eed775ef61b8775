"""The block of HSTU on packed rows: pointwise attention, which counts instead of averaging, gated by its input.

Letters: N rows, C sequences of a slab, L positions, H heads, D width, T distances.
Source: Zhai et al. 2024 (arXiv 2402.17152), equations 1 to 3, with relative positions and without relative times.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from rec.moe.layer import Mixed
from rec.nn.dropout import Dropout
from rec.nn.packed import Layout, by_slabs


class HSTUBlock(nn.Module):
    """Project, attend pointwise, gate, project, add; there is no feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float, max_length: int) -> None:
        """Prepare a block.

        Args:
            width: Of a row.
            heads: Of attention; divides the width.
            dropout: Share of gated values that training leaves out.
            max_length: Most rows of a sequence: what sums over rows are divided by, as published.

        Raises:
            ValueError: the heads do not divide the width.
        """
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide width ({width}), got {heads}")
        self.heads, self.max_length = heads, max_length
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(width, width)
        self.distance_HT = nn.Parameter(torch.randn(heads, max_length) * 0.02)
        """What is added to a score by how many rows lie between: 0 for a row itself."""
        self.dropout = Dropout(dropout)
        nn.init.normal_(self.up.weight, std=0.02)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x_ND: Tensor, where: Layout, mixed: list[Mixed]) -> Tensor:
        """Return the rows after this block, (N, D)."""
        gate_ND, v_ND, q_ND, k_ND = silu(self.up(self.norm_in(x_ND))).chunk(4, -1)
        q_NHD, k_NHD, v_NHD = (part.reshape(len(x_ND), self.heads, -1) for part in (q_ND, k_ND, v_ND))
        found_NHD = pointwise_attention(q_NHD, k_NHD, v_NHD, self.distance_HT, where) / self.max_length
        gated_ND = self.norm_out(found_NHD.reshape(x_ND.shape)) * gate_ND
        out_ND: Tensor = x_ND + self.down(self.dropout(gated_ND))
        return out_ND


def pointwise_attention(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, distance_HT: Tensor, where: Layout) -> Tensor:
    """Return the sum over the rows j of a sequence up to row i of SiLU(q_i k_j + distance_(i-j)) v_j, (N, H, D)."""

    def attended(q_CLHD: Tensor, k_CLHD: Tensor, v_CLHD: Tensor) -> Tensor:
        place_L = torch.arange(q_CLHD.shape[1], device=q_CLHD.device)
        apart_LL = place_L[:, None] - place_L
        score_CHLL = torch.einsum("cihd,cjhd->chij", q_CLHD, k_CLHD) + distance_HT[:, apart_LL.clamp(min=0)]
        weight_CHLL = silu(score_CHLL) * (apart_LL >= 0)
        return torch.einsum("chij,cjhd->cihd", weight_CHLL, v_CLHD)

    return by_slabs(attended, where, q_NHD, k_NHD, v_NHD)
