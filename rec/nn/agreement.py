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
LEAST_DEVIATION = 1e-3
"""Standard deviation of cosines from which items are not all taken to be alike."""
FEWEST = 8
"""Items with a text from which it is known how alike two are: with fewer, the text tells nothing."""
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
        self.per_deviation_K: Tensor
        mean_K, per_deviation_K = _cosines(vectors_IKM, seed)
        self.register_buffer("mean_K", mean_K, persistent=False)
        self.register_buffer("per_deviation_K", per_deviation_K, persistent=False)
        self.scale = nn.Parameter(torch.ones(()))
        self.bias_K = nn.Parameter(torch.zeros(vectors_IKM.shape[1]))

    @torch.no_grad()
    def known(self, vectors_IKM: Tensor, item_N: Tensor, where: Layout) -> Tensor:
        """Return how alike the items are that each row's history ends with, (N, K) float32; 0 is as by chance.

        An item that comes again says nothing of what is followed, and counts once.
        """
        each, again_N = [], self._again(item_N, where)
        for k in range(vectors_IKM.shape[1]):
            unit_NM = nn.functional.normalize(vectors_IKM[item_N, k].float(), dim=1)
            unit_NM = unit_NM.masked_fill(again_N[:, None], 0.0)
            there_N = (unit_NM != 0).any(1)
            sums_NM, count_N = (
                self._recent(unit_NM.double(), where),
                self._recent(there_N.double()[:, None], where)[:, 0],
            )
            pairs_N = (count_N * (count_N - 1)).clamp(min=1)
            cosine_N = (sums_NM.square().sum(1) - count_N) / pairs_N
            excess_N = (cosine_N - self.mean_K[k]) * self.per_deviation_K[k]
            each.append(excess_N * (count_N - 1).clamp(min=0) / (count_N - 1 + SHRINK))
        return torch.stack(each, 1).float()

    def _again(self, item_N: Tensor, where: Layout) -> Tensor:
        """Return which rows are of an item that came before in their sequence, among those that are compared."""
        item, order = item_N.sort(stable=True)
        sequence, place = where.sequence_N[order], where.position_N[order]
        near = place[1:] - place[:-1] < (self.window or where.longest + 1)
        again = (item[1:] == item[:-1]) & (sequence[1:] == sequence[:-1]) & near
        found = torch.zeros(len(item_N), dtype=torch.bool, device=item_N.device)
        found[order[1:]] = again
        return found

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
    """Return the mean of the cosine between two items that have a text, and 1 / its standard deviation, (K,) each.

    0 in the place of the latter where it is not known, or where all items are alike.
    """
    means, inverses = [], []
    for k in range(vectors_IKM.shape[1]):
        items = (vectors_IKM[1:, k] != 0).any(1).nonzero()[:, 0] + 1
        if len(items) > SAMPLED:
            chosen = generator(seed, "agreement", k).choice(len(items), SAMPLED, replace=False)
            items = items[torch.from_numpy(chosen).sort()[0]]
        unit_SM = nn.functional.normalize(vectors_IKM[items, k].float(), dim=1)
        pairs = max(1, len(unit_SM) * (len(unit_SM) - 1))
        cosine_SS = (unit_SM @ unit_SM.T).fill_diagonal_(0.0).double()
        mean = cosine_SS.sum() / pairs
        means.append(mean)
        deviation = (cosine_SS.square().sum() / pairs - mean**2).clamp(min=0).sqrt()
        known = len(unit_SM) >= FEWEST and deviation > LEAST_DEVIATION
        inverses.append(1 / deviation if known else torch.zeros_like(deviation))
    return torch.stack(means).float(), torch.stack(inverses).float()
