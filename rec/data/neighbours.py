"""Nearest neighbours of items by the cosine of their vectors, in blocks: memory grows with items x k, never items^2.

Letters: I items, D width, K neighbours.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rec.errors import DataError
from rec.sections import counted

CELLS = 1 << 25
"""Similarities in memory at once (float32)."""
LISTS_PROBED = 32
SMALLEST = 1e-9
"""Vectors whose largest number is smaller than this, or larger than its inverse, are scaled before they are squared."""


def nearest(vector_ID: np.ndarray, k: int, search: str = "exact", device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Return each item's k most similar other items, best first, and their cosines, (I, K) int32 and float32.

    Of equal cosines the lower number comes first (exact search only). Items without a vector (all zeros) have no
    neighbours and are nobody's: -1 and 0 stand in their places, as where there are fewer than k others.

    Raises:
        DataError: a vector is not finite, or none is left.
    """
    vector = torch.from_numpy(np.ascontiguousarray(vector_ID, dtype=np.float32))
    if not bool(torch.isfinite(vector).all()):
        row = int((~torch.isfinite(vector)).any(1).nonzero()[0])
        raise DataError(f"vector of item {row}: not finite, expected numbers")
    there_N = vector.abs().amax(1).nonzero()[:, 0]
    if len(there_N) < 2:
        raise DataError(f"vectors of {counted(len(there_N), 'item')}, expected those of 2 at least")
    unit_ND = torch.nn.functional.normalize(_ordinary(vector[there_N]))
    found = _inverted(unit_ND, k) if search == "ivf" else _exact(unit_ND.to(device), k)
    item_IK = np.full((len(vector), k), -1, dtype=np.int32)
    cosine_IK = np.zeros((len(vector), k), dtype=np.float32)
    place_NK, cosine_NK = (part.cpu() for part in found)
    width = place_NK.shape[1]
    number_NK = torch.where(place_NK >= 0, there_N[place_NK.clamp(min=0)], -1)
    item_IK[there_N.numpy(), :width] = number_NK.numpy()
    cosine_IK[there_N.numpy(), :width] = cosine_NK.numpy()
    return item_IK, cosine_IK


def _ordinary(vector_ND: Tensor) -> Tensor:
    """Return vectors of the same directions whose squares float32 can hold."""
    size_N1 = vector_ND.abs().amax(1, keepdim=True)
    odd_N1 = (size_N1 < SMALLEST) | (size_N1 > 1 / SMALLEST)
    return torch.where(odd_N1, vector_ND / size_N1, vector_ND)


def _exact(unit_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
    count, k = len(unit_ND), min(k, len(unit_ND) - 1)
    places, cosines = [], []
    block = max(1, CELLS // count)
    for start in range(0, count, block):
        own_B = torch.arange(start, min(start + block, count), device=unit_ND.device)
        cosine_BN = unit_ND[own_B] @ unit_ND.T
        cosine_BN[torch.arange(len(own_B)), own_B] = -torch.inf
        value_BK, place_BK = cosine_BN.topk(k, dim=1)
        # Which of several equal ones topk takes, and in which order, is its own affair: rows with ties are sorted.
        tied_B = (cosine_BN >= value_BK[:, -1:]).sum(1) > k
        tied_B |= (value_BK[:, 1:] == value_BK[:, :-1]).any(1)
        for row in tied_B.nonzero()[:, 0].tolist():
            order = cosine_BN[row].argsort(descending=True, stable=True)[:k]
            place_BK[row], value_BK[row] = order, cosine_BN[row][order]
        places.append(place_BK)
        cosines.append(value_BK)
    return torch.cat(places), torch.cat(cosines)


def _inverted(unit_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
    import faiss

    count, width = unit_ND.shape
    k = min(k, count - 1)
    lists = max(1, min(4 * int(count**0.5), count // 39))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    unit = unit_ND.numpy()
    index.train(unit[:: max(1, count // (64 * lists))])
    index.add(unit)
    index.nprobe = min(lists, LISTS_PROBED)
    cosine, place = index.search(unit, k + 1)
    # An item is nearly always the first of its own neighbours; where a copy of it took that place, the last one goes.
    own = place == np.arange(count)[:, None]
    own[~own.any(1), -1] = True
    return torch.from_numpy(place[~own].reshape(count, k)), torch.from_numpy(cosine[~own].reshape(count, k))
