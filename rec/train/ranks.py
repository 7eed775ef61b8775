"""What ranks agree on outside of an engine: before one is built, and around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from rec.errors import TrainingError

T = TypeVar("T")


class Ranks(Protocol):
    """The processes of a run; every one makes the same calls in the same order."""

    rank: int
    world_size: int
    device: torch.device
    """Where this rank's module belongs."""

    def sum(self, value: Tensor) -> Tensor:
        """Return the elementwise sum over ranks."""

    def gather(self, value: Any) -> list[Any]:
        """Return the Python object of every rank, in the order of ranks, to all."""

    def broadcast(self, value: T) -> T:
        """Return the first rank's value."""


class OneRank:
    """One process alone."""

    rank = 0
    world_size = 1

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def sum(self, value: Tensor) -> Tensor:
        """Return `value`."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Return `value` alone."""
        return [value]

    def broadcast(self, value: T) -> T:
        """Return `value`."""
        return value


class RankFeed:
    """`rec.systems.api.PhaseFeed` over the evaluation order of a run's feed."""

    def __init__(self, ranks: Ranks, evaluate: Callable[[str], Iterator[tuple[Any, bool]]]) -> None:
        self.ranks, self.evaluate = ranks, evaluate
        self.rank, self.world_size = ranks.rank, ranks.world_size

    def rows(self, split: str) -> Iterator[tuple[Any, bool]]:
        """Yield this rank's batches of a split, and whether each counts."""
        for batch, counts in self.evaluate(split):
            yield batch.to(self.ranks.device), counts

    def gather(self, value: Any) -> list[Any]:
        """Return the value of every rank, to all."""
        return self.ranks.gather(value)

    def once(self, function: Callable[[], T]) -> T:
        """Return what `function` returns on the first rank.

        Raises:
            TrainingError: it failed there.
        """
        value: T | None = None
        failure = ""
        if self.rank == 0:
            try:
                value = function()
            except Exception as error:
                if self.world_size == 1:
                    raise
                # The others wait for an answer: they must hear of it.
                failure = f"{type(error).__name__}: {error}"
        value, failure = self.ranks.broadcast((value, failure))
        if failure:
            raise TrainingError(f"what is done once before a phase failed: {failure}")
        return value  # type: ignore[return-value]


@torch.no_grad()
def equalise_buffers(module: nn.Module, ranks: Ranks) -> None:
    """Give every rank the first rank's buffers.

    Raises:
        TrainingError: a rank has other buffers than the first.
    """
    if ranks.world_size == 1:
        return
    own = dict(module.named_buffers())
    first = ranks.broadcast({name: value.detach().cpu() for name, value in own.items()})
    shapes = [{name: tuple(value.shape) for name, value in found.items()} for found in (own, first)]
    if shapes[0] != shapes[1]:
        odd = sorted(name for name in own.keys() | first.keys() if shapes[0].get(name) != shapes[1].get(name))[0]
        raise TrainingError(
            f"buffer {odd!r} has shape {shapes[0].get(odd)} on rank {ranks.rank}, {shapes[1].get(odd)} on rank 0"
        )
    for name, value in own.items():
        value.copy_(first[name])
