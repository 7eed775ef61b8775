"""What a layer may ask of the other workers: without any, nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Later:
    """A tensor that is there once it is asked for."""

    def __init__(self, find: Callable[[], None] | None = None, value: Tensor | None = None) -> None:
        self._find, self._value = find, value

    def give(self, value: Tensor) -> None:
        """Set it."""
        self._value, self._find = value, None

    def __call__(self) -> Tensor:
        """Return it."""
        if self._find is not None:
            self._find()
        assert self._value is not None
        return self._value


class BatchRanks(Protocol):
    """The workers that share a global batch; every one makes the same calls in the same order."""

    def sum(self, value: Tensor) -> Tensor:
        """Return the elementwise sum over ranks."""

    def sum_later(self, value_X: Tensor) -> Later:
        """Return the elementwise sum over ranks, which is made with all others that wait when one is asked for."""

    def join(self, value_A: Tensor) -> tuple[Tensor, int]:
        """Return the values of all ranks one after the other, and where this rank's begin."""


class Waiting:
    """Sums that wait, to be made in one message; all ranks ask in the same order, and for the same one first."""

    def __init__(self, total: Callable[[Tensor], Tensor]) -> None:
        self.total = total
        self.open: list[tuple[Tensor, Later]] = []

    def add(self, value_X: Tensor) -> Later:
        """Return the sum of a vector, float64, over ranks."""
        found = Later(self.settle)
        self.open.append((value_X.detach(), found))
        return found

    def settle(self) -> None:
        """Make all sums that wait."""
        waiting, self.open = self.open, []
        total = self.total(torch.cat([value_X for value_X, _ in waiting]))
        for (_, found), part in zip(waiting, total.split([len(value_X) for value_X, _ in waiting]), strict=True):
            found.give(part)


class OneWorker:
    """One worker."""

    def sum(self, value: Tensor) -> Tensor:
        """Return `value`."""
        return value

    def sum_later(self, value_X: Tensor) -> Later:
        """Return `value_X`."""
        return Later(value=value_X)

    def join(self, value_A: Tensor) -> tuple[Tensor, int]:
        """Return `value_A` and 0."""
        return value_A, 0


ALONE = OneWorker()
