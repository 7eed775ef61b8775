"""Expert health of a trained run: who is routed where, and how alike experts are.

Letters: N rows, B users of a batch, U users, E experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.moe.health import similarity
from rec.moe.layer import Mixed, layers_of


class Routed:
    """Notes each user's mean share of every expert while batches pass through a model."""

    def __init__(self, module: nn.Module) -> None:
        self.batch: Batch | None = None
        self.shares: dict[str, list[Tensor]] = {}
        self.layers = dict(layers_of(module))
        for name, layer in self.layers.items():
            layer.register_forward_hook(lambda _, __, mixed, name=name: self._note(name, mixed))

    def follow(self, batches: Iterator[tuple[Batch, bool]]) -> Iterator[tuple[Batch, bool]]:
        """Yield the batches, remembering which one is being measured."""
        for batch, counts in batches:
            self.batch = batch if counts else None
            yield batch, counts
        self.batch = None

    def _note(self, name: str, mixed: Mixed) -> None:
        if self.batch is None:
            return
        share_NE = mixed.routing.dense().double().cpu()
        where = getattr(self.batch, "where", None)
        owner_N = torch.arange(len(self.batch)) if where is None else where.sequence_N.cpu()
        if len(owner_N) != len(share_NE):
            return  # rows that belong to no one user
        users = len(self.batch)
        total_BE = torch.zeros(users, share_NE.shape[1], dtype=torch.float64).index_add_(0, owner_N, share_NE)
        count_B = torch.bincount(owner_N, minlength=users).clamp(min=1)
        self.shares.setdefault(name, []).append(total_BE / count_B[:, None])

    def numbers(self, names: Sequence[str], group_U: np.ndarray) -> dict[str, Any]:
        """Return per layer the mean share of each expert per group of users, and the cosine between experts."""
        found: dict[str, Any] = {}
        for name, layer in self.layers.items():
            entry: dict[str, Any] = {"groups": {}}
            weights = [p.detach() for p in layer.experts.parameters() if p.shape[:1] == (layer.num_experts,)]
            if weights:
                flat_ED = torch.cat([weight.flatten(1) for weight in weights], 1)
                entry["similarity"] = similarity(flat_ED).tolist()
            share_UE = torch.cat(self.shares[name]).numpy() if name in self.shares else np.empty((0, 0))
            for index, label in enumerate(names if len(share_UE) == len(group_U) else ()):
                if (group_U == index).any():
                    entry["groups"][label] = share_UE[group_U == index].mean(0).tolist()
            found[name] = entry
        return found
