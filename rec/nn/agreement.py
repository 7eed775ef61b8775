"""How alike the items of a history are in each modality: what a user follows shows in what their choices share.

Letters: N rows, I items with padding as item 0, K modalities, M width of the frozen vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rec.nn.packed import Layout
from rec.seeds import generator

SAMPLED = 2048
"""Items from which it is known how alike two of the catalogue are, at most."""
SHRINK = 4.0
"""Further items without agreement that every history is taken to have: two that are alike by chance decide nothing."""


class Agreement(nn.Module):
    """Mean cosine between the texts of a history's last items, less that of the catalogue, in its standard deviations.

    A user who follows a modality chooses items that are alike in it; in others their items are no more alike than any
    two of the catalogue are. Nothing of that has to be learned but how much it counts.
    """

    def __init__(self, vectors_IKM: Tensor, window: int, seed: int) -> None:
        """Learn how alike items are.

        Args:
            vectors_IKM: Frozen vectors of all items; zeros where an item has no text.
            window: Items of the past that are compared, the row's own included; 0 takes the whole history.
            seed: Of the sample of items.
        """
        super().__init__()
        self.window = window
        self.mean_K: Tensor
        self.deviation_K: Tensor
        mean_K, deviation_K = _cosines(vectors_IKM, seed)
        self.register_buffer("mean_K", mean_K, persistent=False)
        self.register_buffer("deviation_K", deviation_K, persistent=False)
        self.scale = nn.Parameter(torch.ones(()))
        self.bias_K = nn.Parameter(torch.zeros(vectors_IKM.shape[1]))

    @torch.no_grad()
    def known(self, vectors_IKM: Tensor, item_N: Tensor, where: Layout) -> Tensor:
        """Return how alike the items are that each row's history ends with, (N, K) float32; 0 is as by chance."""
        each = []
        for k in range(vectors_IKM.shape[1]):
            unit_NM = nn.functional.normalize(vectors_IKM[item_N, k].float(), dim=1)
            there_N = (unit_NM != 0).any(1)
            sums_NM, count_N = (
                self._recent(unit_NM.double(), where),
                self._recent(there_N.double()[:, None], where)[:, 0],
            )
            pairs_N = (count_N * (count_N - 1)).clamp(min=1)
            cosine_N = (sums_NM.square().sum(1) - count_N) / pairs_N
            excess_N = (cosine_N - self.mean_K[k]) / self.deviation_K[k]
            each.append(excess_N * (count_N - 1).clamp(min=0) / (count_N - 1 + SHRINK))
        return torch.stack(each, 1).float()

    def _recent(self, x_NX: Tensor, where: Layout) -> Tensor:
        """Return the sums of each row and of those of its sequence before it, as many as are compared."""
        total_NX = x_NX.cumsum(0)
        position_N = where.position_N
        back_N = position_N + 1 if not self.window else (position_N + 1).clamp(max=self.window)
        before_N = torch.arange(len(x_NX), device=x_NX.device) - back_N
        return total_NX - torch.where((before_N >= 0)[:, None], total_NX[before_N.clamp(min=0)], 0.0)

    def forward(self, known_NK: Tensor) -> Tensor:
        """Return the gate's scores, (N, K)."""
        return known_NK * self.scale + self.bias_K


def _cosines(vectors_IKM: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the cosine between two items, of each modality, (K,) each."""
    items = torch.arange(1, len(vectors_IKM))
    if len(items) > SAMPLED:
        items = torch.from_numpy(generator(seed, "agreement").choice(len(items), SAMPLED, replace=False)).sort()[0] + 1
    means, deviations = [], []
    for k in range(vectors_IKM.shape[1]):
        unit_SM = nn.functional.normalize(vectors_IKM[items, k].float(), dim=1)
        unit_SM = unit_SM[(unit_SM != 0).any(1)]
        pairs = max(1, len(unit_SM) * (len(unit_SM) - 1))
        cosine_SS = (unit_SM @ unit_SM.T).fill_diagonal_(0.0).double()
        mean = cosine_SS.sum() / pairs
        means.append(mean)
        deviations.append((cosine_SS.square().sum() / pairs - mean**2).clamp(min=1e-6).sqrt())
    return torch.stack(means).float(), torch.stack(deviations).float()
