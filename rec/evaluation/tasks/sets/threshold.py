"""The threshold of predicted sets, where validation chooses it.

Letters: B examples, V labels, N examples of all batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import nn

from rec.evaluation.task import by_unit
from rec.evaluation.tasks.sets.metrics import THRESHOLD, overlap

TRIED = tuple(n / 50 for n in range(5, 46))
"""0.10, 0.12, ... 0.90."""


def best_threshold(system: Any, module: nn.Module, batches: Iterable[Any]) -> float:
    """Return which of `TRIED` gives the highest jaccard, averaged by subject; of equal ones that nearest to 0.5.

    Labels are chosen as the system chooses them, so that what it takes from sets afterwards counts.
    """
    value: dict[float, list[np.ndarray]] = {threshold: [] for threshold in TRIED}
    subject = []
    for batch in batches:
        score_BV = system.probabilities(module, batch).float().cpu().numpy()
        true_BV = system.labels(batch).cpu().numpy()
        subject.append(system.subjects(batch).cpu().numpy())
        for threshold in TRIED:
            value[threshold].append(overlap(true_BV, system.chosen(score_BV, threshold))["jaccard"])
    if not subject:
        return THRESHOLD
    unit_N = np.concatenate(subject)
    mean = {threshold: float(by_unit(np.concatenate(parts), unit_N).mean()) for threshold, parts in value.items()}
    return max(TRIED, key=lambda threshold: (round(mean[threshold], 12), -abs(threshold - THRESHOLD), threshold))
