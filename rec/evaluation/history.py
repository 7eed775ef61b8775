"""Where on a run's way an evaluation was made: the x of figures over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EPOCHS = "epoch"
"""What the numbers of `epochs` count, for the axis."""


def epochs(history: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the epochs that a run had made at each evaluation on validation, counted through all its phases.

    Evaluations after epochs 1 and 3 of a first phase and after epoch 2 of a second stand at 1, 3 and 5.
    """
    found: list[int] = []
    before, phase, last = 0, None, 0
    for record in history:
        if phase is not None and record.get("phase") != phase:
            before += last
        phase, last = record.get("phase"), int(record["epoch"])
        found.append(before + last)
    return found
