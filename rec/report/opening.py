"""The first lines of a report: what was trained on what, how good it is beside what, and whether its mixture pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rec.evaluation.headline import (
    Numbers,
    best_answer,
    fair_answers,
    in_column,
    span,
    standing,
    summarise,
    with_spread,
)
from rec.report.origin import Origin, data_name, system_name
from rec.report.verdict import FILE
from rec.sections import counted, number
from rec.storage import Storage


def opening(results: Sequence[Numbers], origin: Origin, storage: Storage) -> str:
    """Return the first lines, one of each kind."""
    first = results[0]
    return "\n".join([_how_good(results, origin), *_mixture(origin, storage), *_meaning(first), *origin.cost()])


def comparisons(numbers: Numbers, names: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Return columns beside a run's metrics, each a head and a text per name: the best simple answer, and the oracle.

    The best is that of a task's first metric. A metric that it lacks is compared with the best that has it.
    """
    found: dict[str, tuple[str, str]] = {}
    for baselines in _by_task(numbers):
        real, first = fair_answers(baselines, numbers), _first(numbers, baselines)
        for name in names:
            best = best_answer(real, first, numbers) if first else ""
            whose = best if best and name in real[best] else best_answer(real, name, numbers)
            if whose:
                found[name] = (whose, number(real[whose][name]))
    columns = [in_column(found)] if found else []
    for oracle in numbers.get("oracles", ()):
        values = numbers["baselines"][oracle]
        columns.append((f"{oracle} (oracle)", {name: number(values[name]) for name in names if name in values}))
    return columns


def explained(columns: Sequence[tuple[str, Mapping[str, str]]], names: Sequence[str]) -> str:
    """Return in words what the columns of `comparisons` are."""
    told = [f"Beside it stands the simple answer that is best in {names[0]}."] if columns and names else []
    if any(head.endswith("(oracle)") for head, _ in columns):
        told.append("An oracle knows what made the data and is out of a model's reach: what it lacks is chance.")
    return " ".join(told)


def _how_good(results: Sequence[Numbers], origin: Origin) -> str:
    first, summary = results[0], summarise(results)
    sizes = origin.sizes()
    told = f" ({sizes})" if sizes else ""
    what = f"{system_name(origin.config)}{_dense(first, origin)}, trained on {data_name(origin.config)}{told},"
    place = f"{counted(first['examples'], 'example')} of the {first['split']} split"
    name = next((name for name in first["shown"] if name in summary), None)
    if name is None:
        return f"{what} has no value of any metric on {place}."
    reached, beside = with_spread(name, results, summary), _beside(name, first, *span(name, results, summary))
    return f"{what} reaches {name} {reached} on {place}{beside}."


def _meaning(numbers: Numbers) -> list[str]:
    """Return what the first metric is, and which of its values are good."""
    name = next((name for name in numbers["shown"] if numbers["metrics"].get(name) is not None), "")
    meaning = numbers.get("meanings", {}).get(name)
    better = "higher" if numbers["directions"].get(name, True) else "lower"
    return (
        [f"{name}: {meaning}; {better} is better."] if meaning else [f"In {name} {better} is better."] if name else []
    )


def _beside(name: str, numbers: Numbers, low: float, high: float) -> str:
    """Return how a metric stands beside the best simple answer, and what the oracle reaches."""
    every = (fair_answers(baselines, numbers) for baselines in _by_task(numbers))
    real: dict[str, Any] = next((one for one in every if best_answer(one, name, numbers)), {})
    whose, text = best_answer(real, name, numbers), ""
    if whose:
        value, higher = real[whose][name], numbers["directions"].get(name, True)
        among = sum(name in values for values in real.values())
        best = f", the best of {counted(among, 'simple answer')}" if among > 1 else ", a simple answer"
        text = f": {standing(value, low, high, higher)} {whose} ({number(value)}){best}"
    for oracle in (one for one in numbers.get("oracles", ()) if name in numbers["baselines"][one]):
        text += f"; {oracle}, an oracle, reaches {number(numbers['baselines'][oracle][name])}"
    return text


def _mixture(origin: Origin, storage: Storage) -> list[str]:
    if storage.exists(FILE):
        return [str(storage.read_json(FILE)["said"]).strip()]
    if not origin.config.model.twins("model"):
        return []
    keys = ", with the keys of the commands below" if origin.changed else ""
    return [f"Whether the mixture pays was not asked: `rec sweep {origin.file} --verdict` tells{keys}."]


def _dense(numbers: Numbers, origin: Origin) -> str:
    """Return that a run has no mixture, where that is so."""
    experts = any(task.get("experts") for task in numbers["tasks"].values())
    return "" if experts or origin.config.model.twins("model") else " (dense: without a gate that learns)"


def _by_task(numbers: Numbers) -> list[Mapping[str, Mapping[str, Any]]]:
    return [task["baselines"] for task in numbers["tasks"].values() if task["baselines"]]


def _first(numbers: Numbers, baselines: Mapping[str, Any]) -> str:
    return next((name for name in numbers["shown"] if any(name in values for values in baselines.values())), "")
