"""The ranks of a run over torch's default process group, as `rec.train.ranks.Ranks`."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

from rec.train.own_time import waiting

T = TypeVar("T")


class TorchRanks:
    """The workers that share the default process group."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.rank, self.world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def sum(self, value: Tensor) -> Tensor:
        """Return the elementwise sum over ranks."""
        if self.world_size == 1:
            return value
        moved = value.to(self.device, copy=True)
        with waiting():
            torch.distributed.all_reduce(moved)
        return moved.to(value.device)

    def gather(self, value: Any) -> list[Any]:
        """Return the Python object of every rank, in the order of ranks, to all."""
        if self.world_size == 1:
            return [value]
        found: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(found, value)
        return found

    def broadcast(self, value: T) -> T:
        """Return the first rank's value."""
        if self.world_size == 1:
            return value
        box: list[Any] = [value if self.rank == 0 else None]
        torch.distributed.broadcast_object_list(box, src=0)
        found: T = box[0]
        return found
