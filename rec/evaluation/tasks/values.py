"""A metric's value over rows, or the reason why there is none.

Letters: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue:
    """A metric over rows; over nothing it is None with a note, never NaN."""

    value: float | None
    count: float
    """How much it is taken over: rows, patients, pairs or n-grams, repeated ones counted each time."""
    note: str = ""
    """Why there is no value, or what a reader must know of this one."""


def notes(told: Mapping[str, MetricValue]) -> list[str]:
    """Return every note once, with the metrics that it is of."""
    found = sorted({value.note for value in told.values() if value.note})
    return [f"{note}: {', '.join(name for name in told if told[name].note == note)}" for note in found]


def quotient(total: float, count: float, *, of: str) -> MetricValue:
    """Return total / count, without a value where the count of what `of` names is 0.

    `quotient(3, 4, of="visits")` is 0.75 over 4; `quotient(0, 0, of="visits")` is None with the note "no visits".
    """
    if count == 0:
        return MetricValue(value=None, count=0, note=f"no {of}")
    return MetricValue(value=total / count, count=count)


def mean(value_N: np.ndarray, weight_N: np.ndarray | None = None, *, of: str) -> MetricValue:
    """Return the mean of one value per row, each row counted as often as its weight says (once without weights).

    Values 1, 0, 0.5 have the mean 0.5; with weights 2, 0, 1 it is (1 + 1 + 0.5) / 3.
    """
    if weight_N is None:
        return quotient(float(value_N.sum(dtype=np.float64)), len(value_N), of=of)
    return quotient(float(weight_N @ value_N.astype(np.float64)), float(weight_N.sum()), of=of)
