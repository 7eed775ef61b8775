"""Counts that a loss wants of a whole step, where the step is made in several microbatches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from rec.errors import TrainingError
from rec.moe.ranks import Later


class StepCounts(nn.Module):
    """Tells what is counted over all microbatches of a step, such as how many rows each expert is given.

    A pass that counts ahead notes what is asked of it (`note`); the passes that follow ask the same in the same order,
    and are told the sums over all microbatches (`tell`). Without these it tells what it is given: a step is one batch.
    `counting` is False for a batch that only keeps step with other workers, and counts nowhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counting = True
        self.clear()

    def clear(self) -> None:
        """Tell what is given."""
        self._noted: list[list[Later]] | None = None
        self._told: list[Later] | None = None
        self._asked = 0

    def note(self) -> None:
        """Note what is asked from now on, until `tell`."""
        self.clear()
        self._noted = []

    def start(self) -> None:
        """A microbatch begins."""
        self._asked = 0
        if self._noted is not None:
            self._noted.append([])

    def tell(self) -> None:
        """Tell the sums of what was noted from now on, until `clear`."""
        noted = self._noted or []
        most = max(map(len, noted), default=0)
        alike = [[asked[place] for asked in noted if place < len(asked)] for place in range(most)]
        self.clear()
        self._told = [Later(value=torch.stack([count() for count in counts]).sum(0)) for counts in alike]

    def of(self, count: Later) -> Later:
        """Return a count of the batch of all workers as that of the whole step."""
        if self._noted is not None:
            self._noted[-1].append(count)
        if self._told is None:
            return count
        self._asked += 1
        if self._asked > len(self._told):
            raise TrainingError("a microbatch asks for more counts of its step than when these were counted ahead")
        return self._told[self._asked - 1]


def step_counts_of(module: nn.Module) -> Iterator[StepCounts]:
    """Yield what tells counts of whole steps inside a module."""
    for part in module.modules():
        if isinstance(part, StepCounts):
            yield part
