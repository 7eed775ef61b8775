"""What a lower share of bad pairs costs in overlap: sets by several thresholds and filters, from records.

Letters: B examples, V labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from rec.evaluation.records import Records, column, ragged
from rec.evaluation.tasks.sets.filters import FILTERS, filtered
from rec.evaluation.tasks.sets.metrics import BLOCK, interacting_pairs, overlap, predicted_sets, summary

LEAST = 0.05
"""Labels of at least this probability are kept in detailed records."""
THRESHOLDS = tuple(n / 20 for n in range(4, 19))
"""0.20, 0.25, ... 0.90."""
EXAMPLES = 1000
"""Most examples that a curve is measured on."""
STEPS = 500
"""Branches of `two_sat` per example of a curve."""
ALLOWED = "greedy_allowed"
ALLOWED_SHARES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of training's examples that have a pair of labels, from which on it may stand."""
CERTAIN = "greedy_certain"
CERTAINTIES = (0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.95)
"""Scores from which on a label stands whatever it interacts with."""
CURVE = ("jaccard_patient", "f1_patient", "ddi_rate", "medications")


def likely(score_BV: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return the columns from which sets by other thresholds follow: labels that are not out of the question."""
    kept_BV = score_BV >= min(LEAST, threshold)
    example_P, label_P = kept_BV.nonzero()
    return {"likely": (label_P, example_P), "likely_probability": (score_BV[kept_BV], example_P)}


def unfiltered(records: Records, interaction_VV: np.ndarray | None, threshold: float, labels: int) -> dict[str, Any]:
    """Return the metrics of sets by the threshold alone, from detailed records."""
    parts = [
        _columns(true_BV, predicted_sets(score_BV, threshold=threshold), interaction_VV)
        for true_BV, score_BV in _blocks(records, labels)
    ]
    return _told(parts, column(records, "subject"))


def curves(
    records: Records,
    interaction_VV: np.ndarray,
    threshold: float,
    together_VV: np.ndarray | None,
    rng: np.random.Generator,
) -> dict[str, list[dict[str, Any]]]:
    """Return overlap, bad pairs and sizes of other sets of the same scores, over all examples or some drawn ones.

    By the name of each filter its points at several thresholds; of the greedy filter at this threshold, as `ALLOWED`
    those where what enough of training's examples have together, a share (V, V), stands, and as `CERTAIN` those where
    what is probable enough does.
    """
    if len(records) > EXAMPLES:
        records = records.take(pa.array(np.sort(rng.permutation(len(records))[:EXAMPLES]))).combine_chunks()
    blocks, subject_B = list(_blocks(records, len(interaction_VV))), column(records, "subject")

    def point(
        least: float, how: str, allowed_VV: np.ndarray | None = None, certain: float | None = None
    ) -> dict[str, Any]:
        parts = []
        for true_BV, score_BV in blocks:
            given_BV = filtered(score_BV, least, interaction_VV, how, allowed_VV, certain=certain, steps=STEPS)
            parts.append(_columns(true_BV, given_BV, interaction_VV))
        told = _told(parts, subject_B)
        return {"threshold": least, **{name: told[name] for name in CURVE}}

    found = {how: [point(least, how) for least in THRESHOLDS] for how in FILTERS}
    if together_VV is not None:
        found[ALLOWED] = [
            {"share": share, **point(threshold, "greedy", together_VV >= share)} for share in ALLOWED_SHARES
        ]
    found[CERTAIN] = [
        {"certain": certain, **point(threshold, "greedy", certain=certain)}
        for certain in CERTAINTIES
        if certain > threshold
    ]
    return found


def _blocks(records: Records, labels: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield true labels (B, V) and scores (B, V) of some examples; what was not likely scores 0."""
    for start in range(0, len(records), BLOCK):
        block = records.slice(start, BLOCK).combine_chunks()
        true_BV, score_BV = np.zeros((len(block), labels), bool), np.zeros((len(block), labels), np.float32)
        label_P, example_P = ragged(block, "target")
        true_BV[example_P, label_P.astype(np.int64)] = True
        label_P, example_P = ragged(block, "likely")
        score_BV[example_P, label_P.astype(np.int64)] = ragged(block, "likely_probability")[0]
        yield true_BV, score_BV


def _columns(true_BV: np.ndarray, given_BV: np.ndarray, interaction_VV: np.ndarray | None) -> dict[str, np.ndarray]:
    found = overlap(true_BV, given_BV)
    if interaction_VV is not None:
        count_B2 = interacting_pairs(given_BV, interaction_VV)
        found |= {"interacting": count_B2[:, 0], "pairs": count_B2[:, 1]}
    return found


def _told(parts: list[dict[str, np.ndarray]], subject_B: np.ndarray) -> dict[str, Any]:
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # No curve over all scores is drawn by these, so that it has no place here.
    whole["prauc"] = np.zeros(len(subject_B))
    return {name: found.value for name, found in summary(whole, subject_B).items() if not name.startswith("prauc")}
