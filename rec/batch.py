"""Batch: the tensors of one step."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Self

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Base of every system's batch: a record of tensors that moves between devices as one."""

    def to(self, device: torch.device | str) -> Self:
        """Return this batch with every tensor on `device`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            self, **{k: v.to(device, non_blocking=True) for k, v in values.items() if isinstance(v, torch.Tensor)}
        )

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""
