"""What a measurement says in words: how good, beside which simple answers; and which numbers are one fact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rec.sections import Table, counted, interval, number

Numbers = Mapping[str, Any]
AT_ONCE = 4
"""Metrics of a table whose rows have long names."""
WORSE, LIKE, BETTER = "worse than", "not clearly different from", "better than"


def summarise(results: Sequence[Numbers]) -> dict[str, Any]:
    """Return mean, standard deviation and every value of each metric over seeds."""
    found = {}
    for name in results[0]["metrics"]:
        values = [r["metrics"].get(name) for r in results]
        if all(value is not None for value in values):
            sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            found[name] = {"mean": float(np.mean(values)), "sd": sd, "values": values}
    return found


def value_in_words(name: str, results: Sequence[Numbers], summary: Numbers) -> str:
    """Return a metric with what is known of its spread: over seeds, or its interval where there is one seed."""
    if len(results) > 1:
        return f"{number(summary[name]['mean'])} ± {number(summary[name]['sd'])}"
    ends = results[0]["interval"].get(name)
    return interval(**ends) if ends else number(summary[name]["mean"])


def headline(results: Sequence[Numbers]) -> str:
    """Return in words how good a measured run is: its first metric, and how that stands beside simple answers."""
    first, summary = results[0], summarise(results)
    place = f"{counted(first['examples'], 'example')} of the {first['split']} split"
    name = next((name for name in first["shown"] if name in summary), None)
    if name is None:
        return f"On {place} no metric has a value."
    better = "higher" if first["directions"].get(name, True) else "lower"
    told = with_spread(name, results, summary)
    text = f"On {place}, {name} is {told}; {better} is better."
    meaning, told = first.get("meanings", {}).get(name), beside(name, results)
    text += f" ({name}: {meaning}.)" if meaning else ""
    return f"{text} That is {told}." if told else text


def with_spread(name: str, results: Sequence[Numbers], summary: Numbers) -> str:
    """Return a metric in a sentence, with what is known of its spread: over seeds, or its interval of one seed."""
    text = number(summary[name]["mean"])
    if len(results) > 1:
        return f"{text} ± {number(summary[name]['sd'])} (standard deviation over {counted(len(results), 'seed')})"
    ends = results[0]["interval"].get(name)
    return f"{text} (95 % interval {number(ends['low'])} to {number(ends['high'])})" if ends else text


def span(name: str, results: Sequence[Numbers], summary: Numbers) -> tuple[float, float]:
    """Return between which values a metric lies: its interval of one seed, else a standard deviation about the mean."""
    if len(results) == 1 and (ends := results[0]["interval"].get(name)):
        return ends["low"], ends["high"]
    entry = summary[name]
    return entry["mean"] - entry["sd"], entry["mean"] + entry["sd"]


def beside(name: str, results: Sequence[Numbers]) -> str:
    """Return how a metric stands beside simple answers, empty where there are none: "worse than popularity (0.13)"."""
    first = results[0]
    low, high = span(name, results, summarise(results))
    found: dict[str, list[str]] = {}
    for label, values in first["baselines"].items():
        if name in values:
            words = standing(values[name], low, high, first["directions"].get(name, True))
            found.setdefault(words, []).append(f"{label} ({number(values[name])})")
    return "; ".join(f"{words} {_joined(labels)}" for words, labels in found.items())


def settings_in_words(numbers: Numbers) -> list[str]:
    """Return how each task measured, a line each: "writing: track leak-free; scored all words"."""
    told: Mapping[str, Mapping[str, str]] = numbers.get("settings", {})
    return [f"{task}: {'; '.join(f'{name} {value}' for name, value in own.items())}" for task, own in told.items()]


def simple_tables(numbers: Numbers) -> list[Table]:
    """Return, for each task with several simple answers, tables of them by the metrics that tell most."""
    found = []
    for told in numbers["tasks"].values():
        baselines = told["baselines"]
        names = [name for name in numbers["shown"] if any(name in values for values in baselines.values())]
        if len(baselines) < 2 or not names:
            continue
        facts = list(one_fact(names, numbers.get("same", {})).items())
        for at in range(0, len(facts), AT_ONCE):
            part = dict(facts[at : at + AT_ONCE])
            head = ["simple answer", *(label(same, numbers["directions"]) for same in part.values())]
            rows = [[whose, *(number(values.get(name)) for name in part)] for whose, values in baselines.items()]
            found.append(Table(head=head, rows=rows))
    return found


def standing(other: float, low: float, high: float, higher: bool) -> str:
    """Return in words how what lies between `low` and `high` stands beside another value."""
    if low <= other <= high:
        return LIKE
    return BETTER if (other < low) == higher else WORSE


def same_everywhere(same: Mapping[str, str], others: Iterable[Mapping[str, float]]) -> dict[str, str]:
    """Return the metrics that are the same in other measurements too: of a perfect model all may be, by chance."""
    tables = list(others)
    return {
        name: first for name, first in same.items() if all(values.get(name) == values.get(first) for values in tables)
    }


def one_fact(names: Iterable[str], same: Mapping[str, str]) -> dict[str, list[str]]:
    """Return names by the first of those whose values are the same for every example."""
    found: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for name in dict.fromkeys(names):
        found.setdefault(first.setdefault(same.get(name, name), name), []).append(name)
    return found


def label(names: Sequence[str], directions: Mapping[str, bool]) -> str:
    """Return what a row or column of one fact is called: its names, and whether lower is better."""
    return " = ".join(names) + ("" if directions.get(names[0], True) else " (lower is better)")


def simple_answers(numbers: Numbers, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return a column of what the best simple answer reaches in each metric: its head, and a text per name.

    One that is told more of the truth than the system is never the best, nor is an oracle. Tasks have simple answers of
    their own; where a column holds several, each value says whose it is.
    """
    found, there = {}, fair_answers(numbers["baselines"], numbers)
    for name in names:
        if whose := best_answer(there, name, numbers):
            found[name] = (whose, number(there[whose][name]))
    return in_column(found)


def fair_answers(answers: Mapping[str, Numbers], numbers: Numbers) -> dict[str, Numbers]:
    """Return the simple answers that know no more than a model may: no oracle, and none that is told of the truth."""
    more = {*numbers.get("oracles", ()), *numbers.get("told_more", ())}
    return {whose: values for whose, values in answers.items() if whose not in more}


def best_answer(answers: Mapping[str, Numbers], name: str, numbers: Numbers) -> str:
    """Return which answer is best in a metric, empty where none has it."""
    there = {whose: values[name] for whose, values in answers.items() if name in values}
    if not there:
        return ""
    best = max if numbers["directions"].get(name, True) else min
    return str(best(there, key=there.__getitem__))


def in_column(found: Mapping[str, tuple[str, str]]) -> tuple[str, dict[str, str]]:
    """Return a column's head and its text per metric, given whose answer it is and the value."""
    labels = {whose for whose, _ in found.values()}
    if len(labels) == 1:
        return labels.pop(), {name: value for name, (_, value) in found.items()}
    return "simple answer" if labels else "", {name: f"{value} ({whose})" for name, (whose, value) in found.items()}


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
