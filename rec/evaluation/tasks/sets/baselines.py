"""Simple sets that every model is told beside: what is given most often, and what was given before.

Letters: B examples, V labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rec.evaluation.records import joined
from rec.evaluation.task import Batches

if TYPE_CHECKING:
    from rec.evaluation.tasks.sets.task import Sets

FREQUENT, REPEATED = "most frequent labels", "labels of the example before"
COMMON, COMMON_SHARE = "labels of half of training", 0.5
"""The field's popularity: every label that at least this share of training's examples has, by that share."""


def measure(task: Sets, system: Any, split: str, batches: Batches) -> Mapping[str, Mapping[str, float | None]]:
    """Return every metric of every simple answer over the examples of a split.

    As many of the most frequent labels of training are given as an example there has in the mean. Where a batch tells
    the labels of the example before, those are given again, and the frequent ones where there is none. The field's
    rule, labels that at least half of training's examples have, may give none at all.
    """
    share_V, size = frequencies(system, batches)
    if not len(share_V):
        return {}
    least = np.sort(share_V)[::-1][size - 1]
    parts: dict[str, list[Any]] = {FREQUENT: [], REPEATED: [], COMMON: []}
    for batch in batches(split):
        rows = len(batch)
        frequent_BV = np.broadcast_to(share_V, (rows, len(share_V)))
        parts[FREQUENT].append(task.record(system, batch, frequent_BV, float(least)))
        parts[COMMON].append(task.record(system, batch, frequent_BV, COMMON_SHARE))
        previous = system.previous(batch)
        if previous is not None:
            previous_BV = previous.cpu().numpy()
            some_B1 = previous_BV.any(1)[:, None]
            score_BV = np.where(some_B1, previous_BV.astype(np.float64), frequent_BV)
            parts[REPEATED].append(task.record(system, batch, score_BV, np.where(some_B1, 0.5, least)))
    return {name: task.metrics(joined(tables)) for name, tables in parts.items() if tables}


def frequencies(system: Any, batches: Batches) -> tuple[np.ndarray, int]:
    """Return the share of training's examples that have each label, (V,), and how many one has in the mean, from 1."""
    total: np.ndarray = np.zeros(0)
    examples = 0
    for batch in batches("train"):
        label_BV = system.labels(batch).cpu().numpy()
        total = label_BV.sum(0) + (total if len(total) else 0)
        examples += len(label_BV)
    size = round(float(total.sum()) / max(examples, 1))
    return total / max(examples, 1), min(max(size, 1), max(len(total), 1))
