"""Whether a run is better than another one, by an interval that knows of both examples and seeds.

Letters: S seeds, V runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Standing = Literal["better", "worse", "alike", "open"]
NORMAL = float(stats.norm.ppf(0.975))
FEWEST = 2
"""Seeds before anything is judged: one tells nothing of their spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What a run gains over another one, above 0 where it is better, whatever the metric's direction."""

    mean: float
    low: float
    high: float
    seeds: int
    margin: float
    """A gain or loss that nobody would notice."""

    @property
    def standing(self) -> Standing:
        """How the run stands: clearly better or worse, clearly no further apart than the margin, or not clear yet."""
        if self.seeds < FEWEST:
            return "open"
        if -self.margin <= self.low and self.high <= self.margin:
            return "alike"
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "open"


def spread_of_seeds(values: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Return the variance of a metric over seeds, pooled over runs (V, S each its own), and how many values
    there are beyond the means.

    All runs are measured on the same examples, so that what differs within one is the seed's doing.
    """
    spare = sum(len(own) - 1 for own in values)
    squares = sum(float(np.var(own)) * len(own) for own in values)
    return (squares / spare if spare else 0.0), spare


def gain(
    difference: Mapping[str, float],
    values: Sequence[Sequence[float]],
    seeds: int,
    *,
    higher_is_better: bool,
    margin: float,
) -> Gain:
    """Return what a run gains over another one.

    The variance is that of examples, from the interval of a paired bootstrap over them, and that of the two means over
    seeds, which are taken as independent; the quantile is Student's with as many degrees as there are
    values beyond the means.

    Args:
        difference: Mean of the run less the other, with the ends of the bootstrap's 95 % interval.
        values: The metric of all runs by seed, from which the spread over seeds is known.
        seeds: Of the two that are compared.
        higher_is_better: Of the metric.
        margin: See `Gain`.
    """
    variance, spare = spread_of_seeds(values)
    of_examples = ((difference["high"] - difference["low"]) / (2 * NORMAL)) ** 2
    quantile = float(stats.t.ppf(0.975, spare)) if spare else NORMAL
    reach = quantile * float(np.sqrt(of_examples + 2 * variance / seeds))
    mean = difference["mean"] if higher_is_better else -difference["mean"]
    return Gain(mean=mean, low=mean - reach, high=mean + reach, seeds=seeds, margin=margin)


def conclusion(gains: Mapping[str, Gain]) -> tuple[Standing, str]:
    """Return whether a mixture pays beside its twins, and the twin that decides.

    "better": it beats all. "worse": one beats it. "alike": one does as well. "open": none of these is clear yet.
    """
    by: dict[Standing, list[str]] = {}
    for name, found in gains.items():
        by.setdefault(found.standing, []).append(name)
    for standing in ("worse", "alike", "open"):
        if names := by.get(standing):
            return standing, min(names, key=lambda name: gains[name].mean)
    return "better", min(gains, key=lambda name: gains[name].mean)
