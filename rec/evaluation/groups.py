"""Metrics with their intervals, of all examples and of groups of them.

Letters: B examples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rec.evaluation.bootstrap import intervals, summed_interval
from rec.evaluation.task import Measured, Task, by_unit


def of_all(
    task: Task,
    measured: Measured,
    names: Sequence[str],
    rng: np.random.Generator,
    inside_B: np.ndarray | None = None,
) -> dict[str, dict[str, float]]:
    """Return some metrics with their intervals, over all examples or those of a group."""
    unit_B, resamples = task.unit(measured.records), measured.config.bootstrap
    inside_B = np.ones(len(measured.records), bool) if inside_B is None else inside_B
    unit_B = None if unit_B is None else unit_B[inside_B]
    plain = {n: by_unit(measured.values[n][inside_B], unit_B) for n in names if n in measured.values}
    found = intervals(plain, resamples, rng)
    sums = task.sums(measured.records)
    for name in (n for n in names if n in sums):
        told = summed_interval(sums[name].within(inside_B), unit_B, resamples, rng)
        found |= {} if told is None else {name: told.plain()}
    return {name: found[name] for name in names if name in found}


def of_group(
    task: Task, measured: Measured, rng: np.random.Generator, inside_B: np.ndarray
) -> dict[str, dict[str, float | None]]:
    """Return the metrics that are told of a group, with their intervals where they have one."""
    found: dict[str, dict[str, float | None]] = {}
    found |= {name: {**ends} for name, ends in of_all(task, measured, task.grouped, rng, inside_B).items()}
    if all(name in found for name in task.grouped):
        return found
    inside = {name: value[inside_B] for name, value in measured.values.items()}
    metrics = task.metrics(measured.records.filter(inside_B), inside)
    for name in task.grouped:
        if name not in found and metrics.get(name) is not None:
            found[name] = {"mean": metrics[name], "low": None, "high": None}
    return {name: found[name] for name in task.grouped if name in found}
