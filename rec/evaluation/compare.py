"""Two runs side by side: paired bootstrap over the examples that both answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from rec.errors import EvaluationError
from rec.evaluation.bootstrap import Comparison, mean_over_seeds, paired, paired_sums
from rec.evaluation.records import Records, column
from rec.evaluation.run import read_config, read_numbers, seed_folders
from rec.evaluation.task import Task, by_unit
from rec.seeds import generator
from rec.storage import Storage
from rec.strict import resolve

METRIC = "metric/"
NEVER = "never compared"
"""Begins why metrics are not compared of runs that were measured in different ways."""
UNTOLD = "that is not told (evaluate it again)"
"""Of a setting that an earlier measurement did not know."""
NOTHING: dict[str, Any] = dict.fromkeys(("a", "b", "difference", "not_better"))
"""Of a metric that is not compared."""


def compare(a: str, b: str, resamples: int, split: str = "test") -> list[dict[str, Any]]:
    """Return, per metric that the runs' tasks compare by, the paired bootstrap of run A against run B.

    A metric of which no example has a value in both is there with None in the place of numbers, and `why`; so is every
    metric of a task that measured the two otherwise, as on another track: those are never compared.

    A run is a folder that was evaluated; one with seeds counts by the mean over its seeds of each example's metric.

    Raises:
        EvaluationError: a run was not evaluated, or the two answered other examples.
    """
    return compare_seeds(seed_folders(a), seed_folders(b), resamples, split, names=(a, b))


def compare_seeds(
    ours: Sequence[str], theirs: Sequence[str], resamples: int, split: str = "test", *, names: tuple[str, str]
) -> list[dict[str, Any]]:
    """Return what `compare` does for two runs whose seeds lie in any folders; `names` are for errors."""
    a, b = names
    results: list[dict[str, Any]] = []
    tasks = {task.name: task for task in tasks_of(ours[0])}
    common = [task for task in tasks_of(theirs[0]) if task.name in tasks]
    if not common:
        raise EvaluationError(f"{a} and {b}: have no task in common")
    for task in common:
        if why := _apart(task, ours[0], theirs[0], split):
            rows = [(n, task.directions[n]) for n in dict.fromkeys(task.compared) if n in task.directions]
            results += [{"metric": name, "higher_is_better": higher, **NOTHING, "why": why} for name, higher in rows]
            continue
        first, second = (records_of_seeds(folders, split, task.name) for folders in (ours, theirs))
        if not _same_examples(task, first[0], second[0]):
            raise EvaluationError(f"{a} and {b}: answered other examples; both must come from one prepared data set")
        known: dict[bytes, str] = {}
        for name in dict.fromkeys((*tasks[task.name].compared, *task.compared)):
            if name in task.directions and (why := task.unlike(name, first[0], second[0])):
                results.append({"metric": name, "higher_is_better": task.directions[name], **NOTHING, "why": why})
                continue
            rng = generator(0, "compare", _drawn_as(name, [*first, *second], known))
            found = _of_examples(task, name, first, second, resamples, rng) or _of_sums(
                task, name, first, second, resamples, rng
            )
            if name not in task.directions:
                continue
            higher = task.directions[name]
            row = {"metric": name, "higher_is_better": higher}
            if found is None:
                if all(METRIC + name in table.column_names for table in (*first, *second)):
                    results.append(row | NOTHING | {"why": "no example has a value in both"})
                continue
            value, other, result = found
            results.append(
                row
                | {
                    "a": value,
                    "b": other,
                    "difference": result.difference.plain(),
                    "not_better": result.worse_share if higher else result.lower_worse_share,
                }
            )
    return results


def _apart(task: Task, ours: str, theirs: str, split: str) -> str:
    """Return in which settings two runs may not differ and do, empty where there is nothing."""
    a, b = (read_numbers(folder, split).get("apart", {}).get(task.name, {}) for folder in (ours, theirs))
    differ = [
        f"{name} {a.get(name, UNTOLD)} and {b.get(name, UNTOLD)}" for name in {**a, **b} if a.get(name) != b.get(name)
    ]
    return f"{NEVER}: {', '.join(differ)}" if differ else ""


def _drawn_as(name: str, tables: Sequence[Records], known: dict[bytes, str]) -> str:
    """Return the first metric whose columns are the same in all tables: equal columns have equal intervals."""
    if not all(METRIC + name in table.column_names for table in tables):
        return name
    return known.setdefault(b"".join(column(table, METRIC + name).tobytes() for table in tables), name)


def _of_examples(
    task: Task, name: str, first: list[Records], second: list[Records], resamples: int, rng: np.random.Generator
) -> tuple[float, float, Comparison] | None:
    """Return a metric that is a mean over examples of either run, and the comparison; None where there is none."""
    if not all(METRIC + name in table.column_names for table in (*first, *second)):
        return None
    unit = task.unit(first[0])
    ours, theirs = (
        by_unit(np.mean([column(table, METRIC + name) for table in tables], axis=0), unit) for tables in (first, second)
    )
    there = ~np.isnan(ours + theirs)
    if not there.any():
        return None
    return float(ours[there].mean()), float(theirs[there].mean()), paired(ours[there], theirs[there], resamples, rng)


def _of_sums(
    task: Task, name: str, first: list[Records], second: list[Records], resamples: int, rng: np.random.Generator
) -> tuple[float, float, Comparison] | None:
    """Return a metric that follows from sums over examples of either run, and the comparison."""
    ours, theirs = ([task.sums(table).get(name) for table in tables] for tables in (first, second))
    a, b = [one for one in ours if one is not None], [one for one in theirs if one is not None]
    if len(a) < len(first) or len(b) < len(second) or any(one.value() is None for one in (*a, *b)):
        return None
    return mean_over_seeds(a), mean_over_seeds(b), paired_sums(a, b, task.unit(first[0]), resamples, rng)


def tasks_of(folder: str) -> tuple[Task, ...]:
    """Return the tasks of the system of a run."""
    tasks: tuple[Task, ...] = resolve(read_config(folder).system).tasks
    return tasks


def records_of_seeds(folders: Sequence[str], split: str, task: str) -> list[Records]:
    """Return the records of each seed of a run, by their folders.

    Raises:
        EvaluationError: a seed was not evaluated.
    """
    tables = []
    for part in folders:
        read_numbers(part, split)
        with Storage(part).open(f"evaluation/{split}/{task}.parquet") as file:
            tables.append(pq.read_table(file))
    return tables


def _same_examples(task: Task, first: Records, second: Records) -> bool:
    if len(first) != len(second):
        return False
    both = list(zip(task.identity(first), task.identity(second), strict=True))
    return bool(both) and all(bool((one == other).all()) for one, other in both)
