"""Where a training run stands; part of every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrainingProgress:
    """Where a run stands."""

    phase: int = 0
    epoch: int = 0
    """Epochs done in this phase."""
    step: int = 0
    """Steps done in this epoch."""
    total_step: int = 0
    """Steps done in all phases."""
    phase_start: int = 0
    """`total_step` at the start of this phase."""
    best: float | None = None
    """Value of the phase's metric at its best evaluation, None before the first."""
    best_step: int | None = None
    """`total_step` of that evaluation, whose checkpoint is kept."""
    stale: int = 0
    """Evaluations since the best one."""
    stale_examples: int = 0
    """Examples of training since the best one."""
    finished: bool = False
    """Whether nothing is left to train."""
    sums: dict[str, list[float]] = field(default_factory=dict)
    """(sum, count) of each loss term in this epoch."""
    usage: dict[str, list[float]] = field(default_factory=dict)
    """What each mixture layer has counted since the last evaluation."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One record per evaluation."""

    def next_phase(self) -> None:
        """Stand at the start of the next phase: a phase's best value says nothing about that of another."""
        self.phase, self.epoch, self.step, self.stale, self.stale_examples = self.phase + 1, 0, 0, 0, 0
        self.best = self.best_step = None
        self.phase_start = self.total_step
        self.sums, self.usage = {}, {}
