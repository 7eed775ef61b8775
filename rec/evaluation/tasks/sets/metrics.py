"""Metrics of predicted sets of codes: per visit as plain arrays, then over visits and over patients.

Source: the definitions shared by GAMENet (Shang et al., 2019), SafeDrug (Yang et al., 2021) and NLA-MMR (Tan et al.,
2024). Where a batch of visits is averaged there, we sum per visit: the values do not depend on the batch size.
Letters: N visits, P patients, V codes, R rounds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rec.errors import DataError
from rec.evaluation.tasks.values import MetricValue, mean, quotient

THRESHOLD = 0.5
AVERAGED = ("jaccard", "precision", "recall", "f1", "prauc")
RANKED = 20
"""Most probable labels among which rare ones are looked for."""
RARE = ("rare_recall_patient", "rare_jaccard_patient", f"rare_recall@{RANKED}_patient")
"""Overlaps over the labels alone that training has seldom, known once a run is measured for a report."""
higher_is_better: Mapping[str, bool] = {
    **{f"{name}_{unit}": True for name in AVERAGED for unit in ("visit", "patient")},
    "ddi_rate": False,
}
DESCRIPTIVE = ("medications", "true_medications", "true_ddi_rate")
"""Values that stand beside the metrics but are neither good nor bad, so they can choose no checkpoint."""

BLOCK = 4096


def predicted_sets(score_NV: np.ndarray, *, threshold: float | np.ndarray = THRESHOLD) -> np.ndarray:
    """Return which codes each visit is given, bool (N, V): those whose score is at least the threshold.

    Scores 0.7, 0.5, 0.2 at threshold 0.5 give the first two codes.

    Raises: DataError where a score is not a finite number, with its row and column.
    """
    bad = np.argwhere(~np.isfinite(score_NV))
    if len(bad):
        row, column = bad[0]
        raise DataError(f"score: row {row}, column {column}: found {score_NV[row, column]}, expected a finite number")
    predicted: np.ndarray = score_NV >= threshold
    return predicted


def overlap(true_NV: np.ndarray, predicted_NV: np.ndarray) -> dict[str, np.ndarray]:
    """Return jaccard, precision, recall, f1 and the sizes of both sets for each visit, (N,) each.

    Truth {a, b, c} and prediction {b, c, d, e} share 2 codes: jaccard 2/5, precision 2/4, recall 2/3,
    f1 = 2 * (1/2 * 2/3) / (1/2 + 2/3) = 4/7, medications 4, true_medications 3. Whatever would divide by an empty set
    is 0, and so is the jaccard of two empty sets.
    """
    both_N = np.count_nonzero(true_NV & predicted_NV, 1).astype(np.float64)
    true_N = np.count_nonzero(true_NV, 1).astype(np.float64)
    predicted_N = np.count_nonzero(predicted_NV, 1).astype(np.float64)
    either_N = true_N + predicted_N - both_N
    # Every quotient has 0 above where it has 0 below, so dividing by 1 there gives the 0 that is wanted.
    return {
        "jaccard": both_N / np.maximum(either_N, 1),
        "precision": both_N / np.maximum(predicted_N, 1),
        "recall": both_N / np.maximum(true_N, 1),
        # 2PR / (P + R) with P = both / predicted and R = both / true.
        "f1": 2 * both_N / np.maximum(true_N + predicted_N, 1),
        "medications": predicted_N,
        "true_medications": true_N,
    }


def average_precision(true_NV: np.ndarray, score_NV: np.ndarray) -> np.ndarray:
    """Return the area under each visit's precision-recall curve (prauc), float64 (N,), 0 where nothing is true.

    Sum over thresholds of (gain in recall) * precision; equal scores form one threshold. Truth 1, 0, 1 under scores
    0.9, 0.8, 0.7 gives 1/2 * 1/1 + 1/2 * 2/3 = 5/6; under equal scores it gives 2/3, the share of true codes.
    """
    value_N = np.zeros(len(true_NV))
    for start in range(0, len(true_NV), BLOCK):
        block = slice(start, start + BLOCK)
        order_BV = np.argsort(-score_NV[block], 1)
        sorted_BV = np.take_along_axis(score_NV[block], order_BV, 1)
        hits_BV = np.cumsum(np.take_along_axis(true_NV[block], order_BV, 1), 1, dtype=np.int32)
        last_BV = np.ones(sorted_BV.shape, bool)
        last_BV[:, :-1] = sorted_BV[:, :-1] != sorted_BV[:, 1:]
        reached_BV = np.maximum.accumulate(np.where(last_BV, hits_BV, 0), 1)
        gain_BV = np.diff(reached_BV, axis=1, prepend=0)
        precision_BV = hits_BV / np.arange(1, hits_BV.shape[1] + 1)
        value_N[block] = (gain_BV * precision_BV).sum(1) / np.maximum(hits_BV[:, -1:].sum(1), 1)
    return value_N


def interacting_pairs(set_NV: np.ndarray, interaction_VV: np.ndarray) -> np.ndarray:
    """Return (pairs of codes that interact, pairs of codes) in each visit's set, int64 (N, 2); they add over visits.

    Codes {a, b, c} of which only a and c interact: (1, 3). A set of one code has no pair: (0, 0).

    Raises: DataError where the interactions are not a symmetric square of V codes with nothing on its diagonal.
    """
    codes = set_NV.shape[1]
    if interaction_VV.shape != (codes, codes):
        raise DataError(
            f"interactions: found shape {interaction_VV.shape}, expected ({codes}, {codes}), one row per code"
        )
    interacts_VV = interaction_VV != 0
    if (interacts_VV != interacts_VV.T).any() or interacts_VV.diagonal().any():
        raise DataError("interactions: expected a symmetric matrix without interactions of a code with itself")
    count_N2 = np.empty((len(set_NV), 2), np.int64)
    for start in range(0, len(set_NV), BLOCK):
        # Counts of codes are exact in float32, and its product is far faster than that of integers.
        set_BV = set_NV[start : start + BLOCK].astype(np.float32)
        partner_BV = set_BV @ interacts_VV.astype(np.float32)
        count_N2[start : start + BLOCK, 0] = (partner_BV * set_BV).sum(1, dtype=np.float64) / 2
    size_N = np.count_nonzero(set_NV, 1)
    count_N2[:, 1] = size_N * (size_N - 1) // 2
    return count_N2


def ddi_rate(total_2: np.ndarray) -> MetricValue:
    """Return the share of pairs that interact, from the summed counts of `interacting_pairs`; 0 where there is no pair.

    Visits with (1, 3) and (0, 1) have the rate 1/4, not the mean of 1/3 and 0.
    """
    interacting, pairs = (float(v) for v in total_2)
    if pairs == 0:
        return MetricValue(value=0.0, count=0, note="no pair of codes")
    return quotient(interacting, pairs, of="pairs")


def per_visit(
    true_NV: np.ndarray,
    score_NV: np.ndarray,
    *,
    interaction_VV: np.ndarray | None = None,
    threshold: float | np.ndarray = THRESHOLD,
    predicted_NV: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return every column of a visit that `summary` needs, (N,) each: columns of several workers concatenate.

    Predicted are the codes of at least `threshold`, or `predicted_NV`, where something else chooses. Columns are those
    of `overlap`, prauc, and, with interactions, interacting, pairs, true_interacting, true_pairs.
    """
    if true_NV.shape != score_NV.shape:
        raise DataError(f"score: found shape {score_NV.shape}, expected {true_NV.shape}, that of the true codes")
    true_NV = true_NV.astype(bool)
    at_least_NV = predicted_sets(score_NV, threshold=threshold)
    predicted_NV = at_least_NV if predicted_NV is None else predicted_NV
    column = overlap(true_NV, predicted_NV) | {"prauc": average_precision(true_NV, score_NV)}
    if interaction_VV is not None:
        for prefix, set_NV in (("", predicted_NV), ("true_", true_NV)):
            count_N2 = interacting_pairs(set_NV, interaction_VV)
            column |= {f"{prefix}interacting": count_N2[:, 0], f"{prefix}pairs": count_N2[:, 1]}
    return column


def patient_means(value_N: np.ndarray, patient_index_N: np.ndarray) -> np.ndarray:
    """Return each patient's mean over visits, float64 (P,); every index below P has a visit.

    Values 1, 0, 0.5 of patients 0, 1, 0 give 0.75 and 0.
    """
    mean_P: np.ndarray = np.bincount(patient_index_N, value_N) / np.bincount(patient_index_N)
    return mean_P


def summary(
    column: Mapping[str, np.ndarray], patient_N: np.ndarray, weight_N: np.ndarray | None = None
) -> dict[str, MetricValue]:
    """Return every metric over the visits of `per_visit`: `*_visit` and `*_patient` means, rates, mean sizes.

    `*_visit` is the mean over visits, `*_patient` the mean over patients of their means over visits. A weight says how
    often a visit counts (see `resampled_visits`); it must be the same for all visits of a patient. Without interactions
    the DDI rates have no value. Patient p with jaccard 1 and 0.5, patient q with 0: visit mean 1.5/3, patient mean
    0.75/2.
    """
    if weight_N is None:
        weight_N = np.ones(len(patient_N))
    _, first_P, index_N = np.unique(patient_N, return_index=True, return_inverse=True)
    result: dict[str, MetricValue] = {}
    for name in AVERAGED:
        result[f"{name}_visit"] = mean(column[name], weight_N, of="visits")
        result[f"{name}_patient"] = mean(patient_means(column[name], index_N), weight_N[first_P], of="patients")
    for prefix in ("", "true_"):
        result[f"{prefix}medications"] = mean(column[f"{prefix}medications"], weight_N, of="visits")
        result[f"{prefix}ddi_rate"] = _rate(column, prefix, weight_N)
    return result


def _rate(column: Mapping[str, np.ndarray], prefix: str, weight_N: np.ndarray) -> MetricValue:
    if f"{prefix}pairs" not in column:
        return MetricValue(value=None, count=0, note="no interactions of codes are given")
    if weight_N.sum() == 0:
        return MetricValue(value=None, count=0, note="no visits")
    return ddi_rate(np.array([weight_N @ column[f"{prefix}{name}"] for name in ("interacting", "pairs")]))


def resampled_visits(patient_N: np.ndarray, rng: np.random.Generator, *, rounds: int, share: float) -> np.ndarray:
    """Return how often each visit counts in each round, float64 (R, N): patients are drawn with replacement.

    A round draws round(share * number of patients) patients and takes all their visits, as often as each was drawn.
    Source: the test protocol of the field is 10 rounds of share 0.8, reported as mean and std (ddof 0) over rounds.
    """
    patients, index_N = np.unique(patient_N, return_inverse=True)
    drawn_RD = rng.integers(0, max(len(patients), 1), (rounds, round(share * len(patients))))
    weight_RP = np.stack([np.bincount(drawn_D, minlength=len(patients)) for drawn_D in drawn_RD])
    return weight_RP[:, index_N].astype(np.float64)
