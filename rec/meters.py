"""Accumulators whose state adds up across workers: sums travel, averages never do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


class Mean:
    """Weighted mean; `state` is (sum, count) in float64, so states of many workers add."""

    def __init__(self) -> None:
        self.state = torch.zeros(2, dtype=torch.float64)

    def add(self, value_B: Tensor) -> None:
        """Add one value per example."""
        self.add_sum(value_B.double().sum(), value_B.numel())

    def add_sum(self, total: Tensor | float, count: Tensor | float) -> None:
        """Add a sum over `count` examples."""
        self.state += torch.stack([torch.as_tensor(v, dtype=torch.float64).cpu().detach() for v in (total, count)])

    def result(self) -> float:
        """Return the mean, NaN where nothing was added."""
        return (self.state[0] / self.state[1]).item()


class Rows:
    """Per-example records (user, rank, ...), kept as columns; records of many workers concatenate."""

    def __init__(self) -> None:
        self.parts: list[dict[str, np.ndarray]] = []

    def add(self, columns: Mapping[str, Tensor]) -> None:
        """Add one batch of records; every column has one row per example."""
        self.parts.append({name: value.detach().cpu().numpy() for name, value in columns.items()})

    def columns(self) -> dict[str, np.ndarray]:
        """Return every record added so far, as columns."""
        if not self.parts:
            return {}
        return {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}


Meter = Mean | Rows
