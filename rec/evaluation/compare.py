"""Two runs side by side: paired bootstrap over the examples that both answered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet as pq

from rec.config import resolve
from rec.errors import EvaluationError
from rec.evaluation.bootstrap import paired
from rec.evaluation.run import read_config, read_numbers, seed_folders
from rec.evaluation.task import Task, by_unit
from rec.seeds import generator
from rec.storage import Storage

METRIC = "metric/"


def compare(a: str, b: str, resamples: int, split: str = "test") -> list[dict[str, Any]]:
    """Return, per metric that the runs' tasks show, the paired bootstrap of run A against run B.

    A run is a folder that was evaluated; one with seeds counts by the mean over its seeds of each example's metric.

    Raises:
        EvaluationError: a run was not evaluated, or the two answered other examples.
    """
    results: list[dict[str, Any]] = []
    tasks = {task.name: task for task in tasks_of(a)}
    common = [task for task in tasks_of(b) if task.name in tasks]
    if not common:
        raise EvaluationError(f"{a} and {b}: have no task in common")
    for task in common:
        first, second = _per_example(a, split, task.name), _per_example(b, split, task.name)
        if not _same_examples(first, second):
            raise EvaluationError(f"{a} and {b}: answered other examples; both must come from one prepared data set")
        names = dict.fromkeys((*tasks[task.name].shown, *task.shown))
        for name in [n for n in names if METRIC + n in first and METRIC + n in second]:
            ours, theirs = (by_unit(t[METRIC + name], t.get("unit")) for t in (first, second))
            there = ~np.isnan(ours + theirs)
            if not there.any():
                continue
            result = paired(ours[there], theirs[there], resamples, generator(0, "compare", name))
            higher = task.directions[name]
            results.append(
                {
                    "metric": name,
                    "higher_is_better": higher,
                    "a": float(ours[there].mean()),
                    "b": float(theirs[there].mean()),
                    "difference": result.difference.plain(),
                    "not_better": result.worse_share if higher else result.lower_worse_share,
                }
            )
    return results


def tasks_of(folder: str) -> tuple[Task, ...]:
    """Return the tasks of the system of a run."""
    tasks: tuple[Task, ...] = resolve(read_config(seed_folders(folder)[0]).system).tasks
    return tasks


def _same_examples(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    keys = [name for name in ("key", "target") if name in first and name in second]
    return bool(keys) and all(
        len(first[name]) == len(second[name]) and bool((first[name] == second[name]).all()) for name in keys
    )


def _per_example(folder: str, split: str, task: str) -> dict[str, np.ndarray]:
    """Return each example's metrics, mean over seeds, and what examples are told apart by."""
    tables = []
    for part in seed_folders(folder):
        read_numbers(part, split)
        with Storage(part).open(f"evaluation/{split}/{task}.parquet") as file:
            tables.append(pq.read_table(file))
    first = tables[0]
    found = {
        name: np.mean([table[name].to_numpy(zero_copy_only=False) for table in tables], axis=0)
        for name in first.column_names
        if name.startswith(METRIC)
    }
    if "subject" in first.column_names:
        found["key"] = first["subject"].to_numpy()
    if "unit" in first.column_names:
        found["unit"] = first["unit"].to_numpy(zero_copy_only=False)
    if "target" in first.column_names:
        flat = first["target"].combine_chunks()
        found["target"] = np.array([hash(tuple(sorted(row))) for row in flat.to_pylist()])
    return found
