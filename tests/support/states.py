"""Whole states of engines, put together from what ranks own, and tensors in memory that an engine can take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rec.train.shards import Tensors


def state_of(engine: Any) -> dict[str, Tensor]:
    """Every tensor that the ranks of an engine own together; each number is owned once."""
    own = [(piece.name, piece.shape, piece.at, piece.values.detach().cpu().clone()) for piece in engine.pieces()]
    found: dict[str, Tensor] = {}
    owners: dict[str, Tensor] = {}
    for pieces in engine.gather(own):
        for name, shape, at, values in pieces:
            flat = found.setdefault(name, torch.zeros(shape, dtype=values.dtype)).view(-1)
            flat[at : at + len(values)] = values
            owners.setdefault(name, torch.zeros(shape)).view(-1)[at : at + len(values)] += 1
    assert all(bool((count == 1).all()) for count in owners.values()), "a number has no owner, or two"
    return found


class InMemory(Tensors):
    """Tensors of a mapping."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def part(self, name: str, at: int, size: int) -> Tensor:
        return self.tensors[name].reshape(-1)[at : at + size].clone()
