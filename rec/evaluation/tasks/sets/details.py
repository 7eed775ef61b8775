"""Numbers of a measured set predictor beside its metrics: single labels, rare ones, and what a filter changes.

Letters: B examples, V labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rec.data.prepared import Prepared
from rec.evaluation.records import column
from rec.evaluation.task import Batches, Measured, by_unit, mean
from rec.evaluation.tasks.sets import labels, trade_off
from rec.evaluation.tasks.sets.metrics import RARE
from rec.seeds import generator
from rec.systems.capabilities import SetPredictor

MOST_PAIRED = 2000
"""Labels at most whose pairs in training are counted."""
MOST_LABELS = 2000
"""Labels that are told one by one, those first that hold most often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLabels:
    """What training's examples have."""

    examples: int
    count_V: np.ndarray
    """How many have each label, int64 (V,)."""
    together_VV: np.ndarray | None
    """The share that has two labels both, (V, V); None where there are too many labels."""


def training(system: Any, batches: Batches, size: int) -> TrainingLabels:
    """Return what training's examples have of so many labels."""
    examples, count_V = 0, np.zeros(size, np.int64)
    together_VV = np.zeros((size, size)) if size <= MOST_PAIRED else None
    for batch in batches("train"):
        label_BV = system.labels(batch).cpu().numpy()
        examples += len(label_BV)
        count_V += label_BV.sum(0)
        if together_VV is not None:
            together_VV += label_BV.T.astype(np.float32) @ label_BV.astype(np.float32)
    shared_VV = None if together_VV is None else together_VV / max(examples, 1)
    return TrainingLabels(examples=examples, count_V=count_V, together_VV=shared_VV)


def add(measured: Measured, threshold: float) -> None:
    """Add `labels`, `rare`, `filter` and `trade_off` to the numbers, and metrics of rare labels to the values.

    `rare` and the counts of training need batches, `filter` and `trade_off` detailed records.
    """
    system, records, numbers = measured.system, measured.records, measured.numbers
    names = label_names(measured.data, system.entity)
    first, found = measured.data.entities[system.entity].first, labels.counts(records, len(names))
    known = None if measured.batches is None else training(system, measured.batches, len(names))
    if known is not None:
        _add_rare(measured, found, known, first)
    order = [int(label) for label in np.argsort(-found.true_V, kind="stable") if label >= first]
    numbers["labels"] = [
        {"label": names[v], "training": None if known is None else int(known.count_V[v]), **found.of(v)}
        for v in order[:MOST_LABELS]
    ]
    if "likely" in records.column_names:
        _add_filters(measured, threshold, None if known is None else known.together_VV, len(names))


def _add_filters(measured: Measured, threshold: float, together_VV: np.ndarray | None, size: int) -> None:
    system, records, numbers = measured.system, measured.records, measured.numbers
    interaction_VV = system.interactions()
    if filters_sets(system):
        before = trade_off.unfiltered(records, interaction_VV, threshold, size)
        told = [name for name in before if not name.startswith("true_")]
        pair = {"before": {n: before[n] for n in told}, "after": {n: numbers["metrics"].get(n) for n in told}}
        # A system whose config says that nothing is taken gives what the threshold gives.
        if any(not _same(pair["before"][name], pair["after"][name]) for name in told):
            numbers["filter"] = pair
    if interaction_VV is not None:
        rng = generator(measured.seed, "trade-off")
        numbers["trade_off"] = trade_off.curves(records, interaction_VV, threshold, together_VV, rng)


def _same(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isclose(one, other, abs_tol=1e-9))


def filters_sets(system: Any) -> bool:
    """Return whether a system chooses labels by more than a threshold."""
    return type(system).chosen is not SetPredictor.chosen


def label_names(data: Prepared, entity: str) -> list[str]:
    """Return what people call each label, in the order of labels: label v is the entity's member v."""
    table = data.entity(entity)
    source = next(name for name in ("title", "name", "id") if name in table.column_names)
    return [""] * data.entities[entity].first + [str(name) for name in table[source].to_pylist()]


def _add_rare(measured: Measured, found: labels.LabelCounts, known: TrainingLabels, first: int) -> None:
    share = measured.config.rare_share
    rare_V = known.count_V < share * known.examples
    rare_V[:first] = False
    values = labels.rare_values(measured.records, rare_V)
    measured.values |= values
    unit_B = column(measured.records, "subject")
    measured.numbers["metrics"] |= {name: mean(by_unit(values[name], unit_B)) for name in RARE if name in values}
    measured.numbers["rare"] = labels.rare_numbers(found, rare_V, share, first)
