"""Intervals and paired comparisons by resampling users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

CHUNK = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it lies in 95 of 100 resamples of users."""

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
    """Return the mean over users (U,) and its 95 % interval."""
    means = resampled_means(value, resamples, rng)
    return Interval(float(value.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975)))


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one model gains over another on the same users."""

    difference: Interval
    worse_share: float
    """Share of resamples in which the gain is not above zero ..."""
    lower_worse_share: float
    """... and in which it is not below zero, for metrics of which less is better."""


def paired(ours: np.ndarray, theirs: np.ndarray, resamples: int, rng: np.random.Generator) -> Comparison:
    """Return the gain of `ours` over `theirs` (U,) per user, users resampled together."""
    gain = ours - theirs
    means = resampled_means(gain, resamples, rng)
    low, high = np.quantile(means, [0.025, 0.975])
    difference = Interval(float(gain.mean()), float(low), float(high))
    return Comparison(difference, float((means <= 0).mean()), float((means >= 0).mean()))


def intervals(
    values: Mapping[str, np.ndarray], resamples: int, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Return the mean and 95 % interval of every column over the examples that have a value; others are left out."""
    found = {}
    for name, value in values.items():
        kept = value[~np.isnan(value)]
        if len(kept):
            found[name] = interval(kept, resamples, rng).plain()
    return found
