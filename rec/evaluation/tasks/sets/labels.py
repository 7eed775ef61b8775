"""How single labels fare: how often each is true, given and given rightly, and the labels that training has seldom.

Letters: B examples, V labels, P (example, label) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rec.evaluation.records import Records, ragged
from rec.evaluation.tasks.sets.metrics import BLOCK, RANKED

Numbers = dict[str, Any]
RANK = "rank"
"""The column of detailed records that tells how probable each true label is among all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCounts:
    """In how many examples each label is what, int64 (V,) each."""

    true_V: np.ndarray
    given_V: np.ndarray
    right_V: np.ndarray
    """Given and true."""

    def of(self, label: int) -> Numbers:
        """Return the counts of a label, and its precision and recall; None where that is a share of nothing."""
        true, given, right = (int(count[label]) for count in (self.true_V, self.given_V, self.right_V))
        return {
            "true": true,
            "given": given,
            "right": right,
            "precision": right / given if given else None,
            "recall": right / true if true else None,
        }


def pairs(records: Records) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return (label, example) of all true pairs, and of all given ones, int64 (P,) each."""
    (true_P, true_example_P), (given_P, given_example_P) = (ragged(records, name) for name in ("target", "predicted"))
    return (true_P.astype(np.int64), true_example_P), (given_P.astype(np.int64), given_example_P)


def counts(records: Records, labels: int) -> LabelCounts:
    """Return the counts of every label."""
    (true_P, true_example_P), (given_P, given_example_P) = pairs(records)
    both_P = np.intersect1d(true_example_P * labels + true_P, given_example_P * labels + given_P) % max(labels, 1)
    true_V, given_V, right_V = (np.bincount(label_P, minlength=labels) for label_P in (true_P, given_P, both_P))
    return LabelCounts(true_V=true_V, given_V=given_V, right_V=right_V)


def rare_values(records: Records, rare_V: np.ndarray) -> dict[str, np.ndarray]:
    """Return recall and jaccard of each example over rare labels alone, (B,); NaN where it truly has none of them.

    Of the rare labels {a, b} an example has a and is given b: recall 0/1, jaccard 0/2. Where records tell how probable
    labels are (`ranks`), also the share of its rare labels that are among its `RANKED` most probable, given or not.
    """
    rows, labels = len(records), len(rare_V)
    (true_P, true_example_P), (given_P, given_example_P) = pairs(records)
    true_key = (true_example_P * labels + true_P)[rare_V[true_P]]
    given_key = (given_example_P * labels + given_P)[rare_V[given_P]]
    both_B, true_B, given_B = (
        np.bincount(key // max(labels, 1), minlength=rows).astype(np.float64)
        for key in (np.intersect1d(true_key, given_key), true_key, given_key)
    )
    there_B = true_B > 0
    either_B = np.maximum(true_B + given_B - both_B, 1)
    found = {
        "rare_recall_patient": np.where(there_B, both_B / np.maximum(true_B, 1), np.nan),
        "rare_jaccard_patient": np.where(there_B, both_B / either_B, np.nan),
    }
    if RANK in records.column_names:
        near_P = (ragged(records, RANK)[0] <= RANKED) & rare_V[true_P]
        near_B = np.bincount(true_example_P[near_P], minlength=rows)
        found[f"rare_recall@{RANKED}_patient"] = np.where(there_B, near_B / np.maximum(true_B, 1), np.nan)
    return found


def ranks(true_BV: np.ndarray, score_BV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rank of every true label by its score, from 1, behind all equal ones, and its example, (P,) each."""
    example_P, label_P = true_BV.nonzero()
    rank_P = np.empty(len(example_P), np.int32)
    for start in range(0, len(example_P), BLOCK):
        chosen = slice(start, start + BLOCK)
        score_PV = score_BV[example_P[chosen]]
        rank_P[chosen] = (score_PV >= score_BV[example_P[chosen], label_P[chosen]][:, None]).sum(1)
    return rank_P, example_P


def rare_numbers(found: LabelCounts, rare_V: np.ndarray, share: float, first: int) -> Numbers:
    """Return what is told of rare labels over all pairs: how many there are, and precision and recall."""
    true, given, right = (int(count[rare_V].sum()) for count in (found.true_V, found.given_V, found.right_V))
    return {
        "share": share,
        "labels": int(rare_V.sum()),
        "of": len(rare_V) - first,
        "true": true,
        "given": given,
        "right": right,
        "precision": right / given if given else None,
        "recall": right / true if true else None,
    }
