"""The parts of a report that every task has: beside simple answers, and by group of examples."""

from __future__ import annotations

from typing import Any

from rec.evaluation.headline import label, one_fact
from rec.evaluation.task import Measured, Task
from rec.sections import Bars, BarSeries, Section, Table, Text, number, sentence, spread

THIS = "this run"


def beside_baselines(task: Task, measured: Measured) -> list[Section]:
    """Return the task's metrics beside those of simple answers."""
    baselines = measured.numbers["baselines"]
    if not baselines:
        return []
    sources = {THIS: measured.numbers["metrics"], **baselines}
    there = [name for name in task.shown if any(name in found for found in baselines.values())]
    facts = one_fact([name for name in there if sources[THIS].get(name) is not None], measured.numbers.get("same", {}))
    rows = [[whose, *(number(found.get(name)) for name in facts)] for whose, found in sources.items()]
    head = ["", *(label(names, task.directions) for names in facts.values())]
    told = [sentence(f"{whose}: {words}") for whose in baselines if (words := task.meaning(whose))]
    note = " ".join(["Simple answers need no model and were measured on the same examples.", *told])
    parts: list[Any] = [Text(text=note, tone="note"), Table(head=head, rows=rows)]
    shares = [name for name in facts if all(0 <= found.get(name, 0) <= 1 for found in sources.values())]
    parts += [_bars(task, sources, kept) for kept in (shares, [n for n in facts if n not in shares]) if kept]
    return [Section(title="Beside simple answers", parts=parts)]


def _bars(task: Task, sources: dict[str, Any], names: list[str]) -> Bars:
    grey = len(sources) == 2
    series = [
        BarSeries(name=whose, values=[found.get(name) for name in names], muted=grey and whose != THIS)
        for whose, found in sources.items()
    ]
    lower = [name for name in names if not task.directions.get(name, True)]
    caption = f"Lower is better in {', '.join(lower)}." if lower else "Higher is better."
    title = f"{THIS} and {'a simple answer' if grey else 'simple answers'}"
    return Bars(title=title, groups=names, series=series, axis="value", caption=caption, wide=True)


def by_group(measured: Measured, task: Task) -> list[Section]:
    """Return the metrics of each group of examples."""
    groups = measured.numbers["groups"]
    if not groups:
        return []
    there = [name for name in task.shown if any(name in entry for entry in groups.values())]
    facts = one_fact(there, measured.numbers.get("same", {}))
    rows = [
        [name, f"{entry['examples']:,}", *(spread(entry.get(m), entry["examples"]) for m in facts)]
        for name, entry in groups.items()
    ]
    told = [sentence(f"{name}: {words}") for name in measured.groups.names if (words := task.meaning(name))]
    words = " ".join(["Mean with its 95 % bootstrap interval over the examples of a group.", *told])
    head = ["group", "examples", *(label(names, task.directions) for names in facts.values())]
    return [Section(title="Groups", parts=[Text(text=words, tone="note"), Table(head=head, rows=rows)])]
