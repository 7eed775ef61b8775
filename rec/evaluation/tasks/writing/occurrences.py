"""Which things (sentences, n-grams, features) stand in which rows, and what follows from their counts.

All of it needs the texts of the whole corpus: things are numbered as they are first seen, so counts of two corpora do
not add. Letters: N rows, M occurrences, K distinct things.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from rec.evaluation.tasks.values import MetricValue, quotient


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrences:
    """Where each of K things occurs."""

    row_M: np.ndarray
    thing_M: np.ndarray
    num_things: int

    def counts(self, weight_N: np.ndarray | None = None) -> np.ndarray:
        """Return how often each thing occurs, (K,), in rows that count as often as their weight says."""
        weight_M = None if weight_N is None else weight_N[self.row_M]
        return np.bincount(self.thing_M, weight_M, minlength=self.num_things)


def occurrences(things: Iterable[Iterable[Hashable]]) -> Occurrences:
    """Return the occurrences of the things of each row: rows (a, b, a) and (b) hold a, b, a in row 0 and b in row 1."""
    number: dict[Hashable, int] = {}
    row: list[int] = []
    thing: list[int] = []
    for index, here in enumerate(things):
        before = len(thing)
        thing.extend(number.setdefault(one, len(number)) for one in here)
        row.extend([index] * (len(thing) - before))
    return Occurrences(row_M=np.array(row, np.int64), thing_M=np.array(thing, np.int64), num_things=len(number))


def distinct_share(count_K: np.ndarray, *, of: str) -> MetricValue:
    """Return how many distinct things there are per occurrence.

    Of whole sentences it is USR: three rows of which two are alike give 2/3. Of the n-grams of the generated texts it
    is Distinct-n of the corpus: "a b" and "a c" hold 3 distinct words of 4.
    """
    return quotient(int(np.count_nonzero(count_K)), float(count_K.sum()), of=of)


def feature_coverage(count_K: np.ndarray, *, num_features: int) -> MetricValue:
    """Return the share of all features that stand in at least one row (FCR).

    Features {price, sound, strap, tone} of which the texts hold price twice and tone once: 2/4.
    """
    return quotient(int(np.count_nonzero(count_K)), num_features, of="features")


def feature_diversity(count_K: np.ndarray, *, num_rows: float) -> MetricValue:
    """Return the mean number of features that two rows share (DIV); lower is better.

    `count_K` is the number of rows that hold each feature. Each feature in c rows is shared by c (c - 1) / 2 pairs of
    rows: three rows {price, tone}, {price}, {price, tone} share 3 + 1 features in 3 pairs, so 4/3.
    """
    shared = float((count_K * (count_K - 1)).sum()) / 2
    return quotient(shared, num_rows * (num_rows - 1) / 2 if num_rows > 1 else 0, of="pairs of rows")
