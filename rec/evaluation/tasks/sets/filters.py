"""Filters that take labels from predicted sets until no two of them, or no less certain ones, interact badly.

Letters: B examples, V labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from rec.errors import ConfigError, DataError
from rec.evaluation.tasks.sets.metrics import BLOCK, predicted_sets

Filter = Literal["none", "greedy", "two_sat"]
FILTERS: tuple[str, ...] = get_args(Filter)
STEPS = 5_000
"""Branches that `two_sat` looks at for one example before it settles for the best it knows."""
DEPTH = 500


def filtered(
    score_BV: np.ndarray,
    threshold: float | np.ndarray,
    interaction_VV: np.ndarray | None,
    how: str,
    allowed_VV: np.ndarray | None = None,
    *,
    certain: float | None = None,
    steps: int = STEPS,
) -> np.ndarray:
    """Return which labels each example is given, bool (B, V): those of at least `threshold` that pass a filter.

    Labels of scores 0.7, 0.6, 0.6 of which the first interacts with both others: `greedy` keeps the first alone,
    `two_sat` the other two (1.2 is more than 0.7), `none` all three.

    Args:
        score_BV: Scores, such as probabilities.
        threshold: The least score that is given; one per example as (B, 1).
        interaction_VV: Which labels must not stand together, symmetric; None where it is not known: nothing is taken.
        how: "greedy" gives labels by falling score and skips those that interact with one given already; "two_sat" is
            the assignment that satisfies (not i or not j) for each interacting pair and keeps the greatest sum of
            scores, found exactly unless that takes more than `steps` branches; "none" keeps everything.
        allowed_VV: Interacting pairs that may stand together all the same, such as those prescribed in training.
        certain: Labels of at least this score are given whatever they interact with; a filter then takes away the less
            certain ones alone. None keeps none.
        steps: Branches that `two_sat` looks at for one example.

    Raises:
        ConfigError: there is no such filter.
        DataError: a matrix has another shape than (V, V), or a score is not a finite number.
    """
    if how not in FILTERS:
        raise ConfigError(f"filter: found {how!r}, expected one of {', '.join(FILTERS)}")
    given_BV = predicted_sets(score_BV, threshold=threshold)
    if how == "none" or interaction_VV is None:
        return given_BV
    clash_VV = clashes(interaction_VV, allowed_VV, score_BV.shape[1])
    parts = []
    for start in range(0, len(given_BV), BLOCK):
        given, score = given_BV[start : start + BLOCK], score_BV[start : start + BLOCK]
        fixed = np.zeros_like(given) if certain is None else given & (score >= certain)
        open_BV = given & ~fixed & (fixed.astype(np.float32) @ clash_VV.astype(np.float32) == 0)
        parts.append(
            fixed | (greedy(open_BV, score, clash_VV) if how == "greedy" else two_sat(open_BV, score, clash_VV, steps))
        )
    return np.concatenate([given_BV[:0], *parts])


def clashes(interaction_VV: np.ndarray, allowed_VV: np.ndarray | None, labels: int) -> np.ndarray:
    """Return which labels a filter keeps apart, bool (V, V), symmetric: those that interact and are not allowed."""
    for name, matrix in (("interactions", interaction_VV), ("allowed pairs", allowed_VV)):
        if matrix is not None and matrix.shape != (labels, labels):
            raise DataError(f"{name}: found shape {matrix.shape}, expected ({labels}, {labels}), one row per label")
    clash_VV = (interaction_VV != 0) | (interaction_VV != 0).T
    if allowed_VV is not None:
        clash_VV &= ~((allowed_VV != 0) | (allowed_VV != 0).T)
    np.fill_diagonal(clash_VV, val=False)
    return clash_VV


def greedy(given_BV: np.ndarray, score_BV: np.ndarray, clash_VV: np.ndarray) -> np.ndarray:
    """Return the given labels by falling score, without those that clash with one kept before; ties by place."""
    kept_BV = given_BV.copy()
    place_B = np.flatnonzero(_clashing(given_BV, clash_VV).any(1))
    order_BV = np.argsort(-np.where(given_BV[place_B], score_BV[place_B], -np.inf), axis=1, kind="stable")
    count_B = given_BV[place_B].sum(1)
    for rank in range(int(count_B.max(initial=0))):
        place_B, order_BV, count_B = (part[count_B > rank] for part in (place_B, order_BV, count_B))
        label_B = order_BV[:, rank]
        stands_B = kept_BV[place_B, label_B]
        # A label that stands removes all that clash with it: every better one has had its say before.
        kept_BV[place_B[stands_B]] &= ~clash_VV[label_B[stands_B]]
    return kept_BV


def two_sat(given_BV: np.ndarray, score_BV: np.ndarray, clash_VV: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """Return the given labels of the greatest sum of scores among which none clash."""
    kept_BV = given_BV.copy()
    place_B = np.flatnonzero(_clashing(given_BV, clash_VV).any(1))
    kept_BV[place_B], open_BV = _certain(given_BV[place_B], score_BV[place_B], clash_VV)
    neighbours = [sum(1 << int(other) for other in np.flatnonzero(row)) for row in clash_VV]
    for place, open_V in zip(place_B, open_BV, strict=True):
        if open_V.any():
            search = _Search(score_BV[place].tolist(), neighbours, steps)
            best = search.best(sum(1 << int(label) for label in np.flatnonzero(open_V)))
            kept_BV[place, _members(best)] = True
    return kept_BV


def _clashing(set_BV: np.ndarray, clash_VV: np.ndarray) -> np.ndarray:
    """Return which members of each set clash with another, bool (B, V)."""
    return set_BV & (set_BV.astype(np.float32) @ clash_VV.astype(np.float32) > 0)


def _certain(given_BV: np.ndarray, score_BV: np.ndarray, clash_VV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels that a heaviest set surely has, and those that are left to be searched, bool (B, V) each.

    A label that scores at least as much as all that clash with it together is in some heaviest set.
    """
    kept_BV, open_BV = np.zeros_like(given_BV), given_BV.copy()
    weight_BV, clash = score_BV.astype(np.float64), clash_VV.astype(np.float64)
    earlier_VV = np.tril(clash, -1).T
    while True:
        rival_BV = (weight_BV * open_BV) @ clash
        sure_BV = open_BV & (weight_BV >= rival_BV)
        # Of two that clash and weigh the same both would be sure: the first one is.
        sure_BV &= ~(sure_BV.astype(np.float64) @ earlier_VV > 0)
        if not sure_BV.any():
            return kept_BV, open_BV
        kept_BV |= sure_BV
        open_BV &= ~(sure_BV | (sure_BV.astype(np.float64) @ clash > 0))


class _Search:
    """Finds the heaviest set of one example by branching; sets are bits of whole numbers."""

    def __init__(self, weight: Sequence[float], neighbours: Sequence[int], most: int) -> None:
        self.weight, self.neighbours, self.most, self.steps = weight, neighbours, most, 0

    def best(self, open_labels: int) -> int:
        """Return the heaviest subset without clashes, never a lighter one than that of falling scores."""
        return max(self.heaviest(open_labels), self._greedy(open_labels), key=self._total)

    def heaviest(self, open_labels: int, depth: int = 0) -> int:
        """Return the heaviest subset without clashes, as far as the steps reach."""
        self.steps += 1
        if self.steps > self.most or depth > DEPTH:
            return self._greedy(open_labels)
        kept, open_labels = self._certain(open_labels)
        while open_labels:
            part = self._component(open_labels)
            open_labels &= ~part
            kept |= self._branch(part, depth)
        return kept

    def _branch(self, part: int, depth: int) -> int:
        most = max(_members(part), key=lambda label: (self.neighbours[label] & part).bit_count())
        bit = 1 << most
        taken = bit | self.heaviest(part & ~(bit | self.neighbours[most]), depth + 1)
        left = self.heaviest(part & ~bit, depth + 1)
        return taken if self._total(taken) >= self._total(left) else left

    def _certain(self, open_labels: int) -> tuple[int, int]:
        kept, again = 0, True
        while again:
            again = False
            for label in _members(open_labels):
                rivals = self.neighbours[label] & open_labels
                if open_labels >> label & 1 and self.weight[label] >= self._total(rivals):
                    kept |= 1 << label
                    open_labels &= ~(rivals | 1 << label)
                    again = True
        return kept, open_labels

    def _component(self, open_labels: int) -> int:
        found = edge = open_labels & -open_labels
        while edge:
            reached = 0
            for label in _members(edge):
                reached |= self.neighbours[label]
            edge = reached & open_labels & ~found
            found |= edge
        return found

    def _greedy(self, open_labels: int) -> int:
        kept = 0
        for label in sorted(_members(open_labels), key=lambda label: -self.weight[label]):
            if not self.neighbours[label] & kept:
                kept |= 1 << label
        return kept

    def _total(self, labels: int) -> float:
        return sum(self.weight[label] for label in _members(labels))


def _members(labels: int) -> list[int]:
    found = []
    while labels:
        low = labels & -labels
        found.append(low.bit_length() - 1)
        labels ^= low
    return found
