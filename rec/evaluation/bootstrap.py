"""Intervals and paired comparisons by resampling what examples are averaged within: users, patients, examples.

Letters: B examples, U resampled units, S sums, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

CHUNK = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it lies in 95 of 100 resamples."""

    mean: float
    low: float
    high: float

    def plain(self) -> dict[str, float]:
        """Return it as JSON has it."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def resampled_means(value: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the mean of each resample of the rows of `value` (U,) or (U, K): (resamples,) or (resamples, K)."""
    parts = []
    for start in range(0, resamples, CHUNK):
        rows = rng.integers(0, len(value), (min(CHUNK, resamples - start), len(value)))
        parts.append(value[rows].mean(1))
    return np.concatenate(parts)


def interval(value: np.ndarray, resamples: int, rng: np.random.Generator) -> Interval:
    """Return the mean over examples (U,) and its 95 % interval."""
    means = resampled_means(value, resamples, rng)
    return Interval(float(value.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summed:
    """A metric that follows from sums over examples and is no mean of theirs: a quotient, the root of a mean.

    Squared errors 0 and 2.25 are the rows (0, 1) and (2.25, 1); their sum (2.25, 2) gives sqrt(2.25 / 2).
    """

    part_BS: np.ndarray
    """What each example adds."""
    of_total: Callable[[np.ndarray], float | None]
    """From the sums (S,) to the metric, None where there is none."""

    def value(self) -> float | None:
        """Return the metric over all examples."""
        return self.of_total(self.part_BS.sum(0, dtype=np.float64))

    def within(self, inside_B: np.ndarray) -> Summed:
        """Return the metric over some of the examples."""
        return replace(self, part_BS=self.part_BS[inside_B])

    def by_unit(self, unit_B: np.ndarray | None) -> np.ndarray:
        """Return what each unit adds, float64 (U, S)."""
        if unit_B is None:
            return self.part_BS.astype(np.float64)
        _, place_B = np.unique(unit_B, return_inverse=True)
        total_US = np.zeros((int(place_B.max(initial=-1)) + 1, self.part_BS.shape[1]))
        np.add.at(total_US, place_B, self.part_BS)
        return total_US


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one model gains over another on the same examples."""

    difference: Interval
    worse_share: float
    """Share of resamples in which the gain is not above zero ..."""
    lower_worse_share: float
    """... and in which it is not below zero, for metrics of which less is better."""


def paired(ours: np.ndarray, theirs: np.ndarray, resamples: int, rng: np.random.Generator) -> Comparison:
    """Return the gain of `ours` over `theirs` (U,) per user, examples resampled together."""
    gain = ours - theirs
    means = resampled_means(gain, resamples, rng)
    low, high = np.quantile(means, [0.025, 0.975])
    difference = Interval(float(gain.mean()), float(low), float(high))
    return Comparison(difference, float((means <= 0).mean()), float((means >= 0).mean()))


def intervals(
    values: Mapping[str, np.ndarray], resamples: int, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Return the mean and 95 % interval of every column over the examples that have a value; others are left out.

    Equal columns have equal intervals.
    """
    found: dict[str, dict[str, float]] = {}
    known: dict[bytes, str] = {}
    for name, value in values.items():
        kept = value[~np.isnan(value)]
        if len(kept):
            same = known.setdefault(kept.tobytes(), name)
            found[name] = dict(found[same]) if same in found else interval(kept, resamples, rng).plain()
    return found


def equals(values: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return, for every column that holds what an earlier one holds, the name of that one."""
    known: dict[bytes, str] = {}
    first = {name: known.setdefault(np.where(np.isnan(v), -np.inf, v).tobytes(), name) for name, v in values.items()}
    return {name: other for name, other in first.items() if name != other}


def summed_interval(
    summed: Summed, unit_B: np.ndarray | None, resamples: int, rng: np.random.Generator
) -> Interval | None:
    """Return a metric over all examples and its 95 % interval, units resampled; None where it has no value."""
    value = summed.value()
    if value is None:
        return None
    part_US = summed.by_unit(unit_B)
    total_RS = resampled_means(part_US, resamples, rng) * len(part_US)
    value_R = _values(summed, total_RS)
    return Interval(value, float(np.nanquantile(value_R, 0.025)), float(np.nanquantile(value_R, 0.975)))


def paired_sums(
    ours: Sequence[Summed],
    theirs: Sequence[Summed],
    unit_B: np.ndarray | None,
    resamples: int,
    rng: np.random.Generator,
) -> Comparison:
    """Return the gain of `ours` over `theirs`, each a model's seeds whose mean counts; units resampled together."""
    both = [*ours, *theirs]
    parts = [one.by_unit(unit_B) for one in both]
    edges = np.cumsum([part.shape[1] for part in parts])[:-1]
    total_RS = resampled_means(np.concatenate(parts, 1), resamples, rng) * len(parts[0])
    value_MR = np.stack([_values(m, total) for m, total in zip(both, np.split(total_RS, edges, 1), strict=True)])
    gain_R = value_MR[: len(ours)].mean(0) - value_MR[len(ours) :].mean(0)
    gain = mean_over_seeds(ours) - mean_over_seeds(theirs)
    low, high = np.nanquantile(gain_R, [0.025, 0.975])
    difference = Interval(gain, float(low), float(high))
    return Comparison(difference, float((gain_R <= 0).mean()), float((gain_R >= 0).mean()))


def mean_over_seeds(metric: Sequence[Summed]) -> float:
    """Return the mean of one metric over a model's seeds, NaN where one has no value."""
    values = [one.value() for one in metric]
    return float(np.mean([np.nan if value is None else value for value in values]))


def _values(summed: Summed, total_RS: np.ndarray) -> np.ndarray:
    values = (summed.of_total(total_S) for total_S in total_RS)
    return np.array([np.nan if value is None else value for value in values], np.float64)
