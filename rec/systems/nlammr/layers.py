"""Blocks that both sides of NLA-MMR use.

Letters: B visits, S values to attend to, D width of texts, C joint width, N rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rec.nn.dropout import Dropout


class OneHeadAttention(nn.Module):
    """One head that weighs values as they are: only query and keys are projected."""

    def __init__(self, width: int, projected: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, projected), nn.Linear(width, projected)

    def forward(self, query_BD: Tensor, value_BSD: Tensor, mask_BS: Tensor | None = None) -> Tensor:
        """Return the weights of values, float32 (B, S), which sum to 1; 0 where the mask says no, and where all do."""
        query_BC = self.query(query_BD)
        # (W_k v + b_k) q = v (W_k' q) + b_k q: the keys of all S values are never made.
        logit_BS = torch.matmul(value_BSD, (query_BC @ self.key.weight)[:, :, None])[:, :, 0]
        logit_BS = logit_BS + (query_BC @ self.key.bias)[:, None]
        logit_BS = logit_BS.float() / query_BC.shape[1] ** 0.5
        if mask_BS is None:
            return logit_BS.softmax(1)
        some_B1 = mask_BS.any(1, keepdim=True)
        logit_BS = logit_BS.masked_fill(~mask_BS, -torch.inf).masked_fill(~some_B1, 0)
        return logit_BS.softmax(1) * mask_BS


def weighed(weight_BS: Tensor, value_BSD: Tensor) -> Tensor:
    """Return the weighted sum of values, (B, D)."""
    return torch.matmul(weight_BS[:, None].to(value_BSD.dtype), value_BSD)[:, 0]


class Projection(nn.Module):
    """Two layers; the second adds to what it is given."""

    def __init__(self, width: int, out: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, out), nn.Linear(out, out)
        self.dropout = Dropout(dropout)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return the projected rows, (N, C)."""
        y_NC = self.dropout(nn.functional.gelu(self.first(x_ND)))
        projected: Tensor = self.second(y_NC) + y_NC
        return projected
