"""What a layer may ask of the other workers: without any, nothing."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Ranks(Protocol):
    """The workers that share a global batch; every one makes the same calls in the same order."""

    def sum(self, value: Tensor) -> Tensor:
        """Return the elementwise sum over ranks."""

    def join(self, value_A: Tensor) -> tuple[Tensor, int]:
        """Return the values of all ranks one after the other, and where this rank's begin."""


class Alone:
    """One worker."""

    def sum(self, value: Tensor) -> Tensor:
        """Return `value`."""
        return value

    def join(self, value_A: Tensor) -> tuple[Tensor, int]:
        """Return `value_A` and 0."""
        return value_A, 0


ALONE = Alone()
