"""The HTML report of a run: one file without outside parts, from what evaluation has filed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rec.config import RunConfig, to_toml
from rec.evaluation.run import read_config, read_numbers, seed_folders, simple_answers, summarise
from rec.report.html import page
from rec.sections import Code, Lines, LineSeries, Mark, Section, Table, Text, from_plain, interval, number
from rec.storage import Storage

Numbers = dict[str, Any]
History = Sequence[Mapping[str, Any]]


def write_report(folder: str, split: str = "test") -> str:
    """Write `report.html` into a run's folder and return its path.

    Raises:
        EvaluationError: the run was not evaluated.
    """
    folders = seed_folders(folder)
    results = [read_numbers(part, split) for part in folders]
    first, config = Storage(folders[0]), read_config(folders[0])
    history = first.read_json("history.json")
    filed = from_plain(first.read_json(f"evaluation/{split}/sections.json"))
    panels = curves(history, config.train.metric, results[0]["directions"])
    sections = [metrics_section(results), *panels, *filed, all_numbers(results), config_section(config)]
    text = page(
        f"{system_name(config)} on {data_name(config)}",
        lead(results),
        sections,
        facts=facts(config, results, str(history[-1].get("metric", config.train.metric))),
        notices=[note for note in (results[0]["notice"], *results[0]["notes"]) if is_warning(note, results[0])],
        command=f"rec train CONFIG && rec evaluate CONFIG --split {split} && rec report CONFIG",
    )
    storage = Storage(folder)
    storage.write("report.html", text.encode())
    return storage.uri_of("report.html")


def system_name(config: RunConfig) -> str:
    """Return the name of a run's system."""
    return config.system.rsplit(":", 1)[-1]


def data_name(config: RunConfig) -> str:
    """Return what people call a run's data set: the last folder of its path that says something."""
    parts = [part for part in config.data.root.rstrip("/").split("/") if part not in ("", "data", "out")]
    return parts[-1] if parts else config.data.root


def is_warning(note: str, numbers: Numbers) -> bool:
    """Return whether a note must be read before everything else."""
    return note != "" and (note == numbers["notice"] or note.startswith("labels are synthetic"))


def lead(results: Sequence[Numbers]) -> str:
    """Return in words how good the run is, beside what."""
    first, summary = results[0], summarise(list(results))
    names = [name for name in first["shown"] if name in summary]
    if not names:
        return f"Measured on {first['examples']:,} examples of the {first['split']} split; no metric has a value."
    name = names[0]
    told = number(summary[name]["mean"])
    if len(results) > 1:
        told += f" ± {number(summary[name]['sd'])} over {len(results)} seeds"
    elif name in first["interval"]:
        told = interval(**first["interval"][name])
    text = f"{name} is {told} on {first['examples']:,} examples of the {first['split']} split"
    others = [f"{number(values[name])} of {label}" for label, values in first["baselines"].items() if name in values]
    better = "higher" if first["directions"].get(name, True) else "lower"
    return f"{text}{', beside ' + ', '.join(others) if others else ''}; {better} is better."


def facts(config: RunConfig, results: Sequence[Numbers], metric: str) -> list[tuple[str, str]]:
    """Return what was measured, and how."""
    seeds = ", ".join(str(result["seed"]) for result in results)
    return [
        ("data", config.data.root),
        ("split", f"{results[0]['split']}, read once for the checkpoint that validation chose"),
        ("checkpoint", f"step {results[0]['step']:,}, best {metric} on validation"),
        ("seeds" if len(results) > 1 else "seed", seeds),
    ]


def metrics_section(results: Sequence[Numbers]) -> Section:
    """Return the metrics that tell most, with intervals or the spread over seeds, and what must be known of them."""
    first, summary = results[0], summarise(list(results))
    spread = "mean and standard deviation over seeds" if len(results) > 1 else "with its 95 % bootstrap interval"
    shown = [name for name in first["shown"] if name in summary]
    parts: list[Any] = [Text(text=f"Averages over examples, {spread}.", tone="note"), _table(results, shown)]
    parts += [Text(text=note, tone="note") for note in first["notes"] if not is_warning(note, first)]
    return Section(title="Metrics", parts=parts)


def all_numbers(results: Sequence[Numbers]) -> Section:
    """Return the metrics that are not among those that tell most."""
    rest = [name for name in summarise(list(results)) if name not in results[0]["shown"]]
    return Section(title="All other numbers", parts=[_table(results, rest)], folded=True)


def _table(results: Sequence[Numbers], names: Sequence[str]) -> Table:
    first, summary = results[0], summarise(list(results))
    head, beside = simple_answers(first, names)
    rows = []
    for name in names:
        told = number(summary[name]["mean"])
        if len(results) > 1:
            told += f" ± {number(summary[name]['sd'])}"
        elif name in first["interval"]:
            told = interval(**first["interval"][name])
        arrow = "" if first["directions"].get(name, True) else " (lower is better)"
        rows.append([f"{name}{arrow}", told, *([beside.get(name, "-")] if head else [])])
    return Table(head=["metric", "this run", *([head] if head else [])], rows=rows)


def curves(history: History, metric: str, directions: Mapping[str, bool]) -> list[Section]:
    """Return, per phase, the training loss and the metric of validation over epochs."""
    found = []
    phases = list(dict.fromkeys(record["phase"] for record in history))
    for phase in phases:
        records = [record for record in history if record["phase"] == phase]
        name = records[0].get("phase_name", f"phase {phase + 1}")
        title = "Learning curves" if len(phases) == 1 else f"Learning curves of phase {name!r}"
        found.append(Section(title=title, parts=_panels(records, metric, directions)))
    return found


def _panels(records: History, metric: str, directions: Mapping[str, bool]) -> list[Lines]:
    x = [record["epoch"] for record in records]
    losses = list(dict.fromkeys(name for record in records for name in record if name.startswith("loss/")))
    series = [LineSeries(name=n.removeprefix("loss/"), x=x, y=[r.get(n, np.nan) for r in records]) for n in losses]
    panels = [Lines(title="training loss", series=series, x_axis="epoch", y_axis="loss")]
    shown = next((name for name in (records[-1].get("metric"), metric, "val_loss") if name in records[-1]), None)
    if shown is not None:
        higher = directions.get(shown, not shown.startswith(("loss", "val_loss")))
        known = [record for record in records if record.get(shown) is not None]
        marks = []
        if known:
            best = (max if higher else min)(known, key=lambda record: record[shown])
            marks = [Mark(x=best["epoch"], y=best[shown], name=f"best {number(best[shown])}")]
        line = LineSeries(name="", x=x, y=[record.get(shown, np.nan) for record in records])
        panels.append(Lines(title=f"validation {shown}", series=[line], x_axis="epoch", y_axis=shown, marks=marks))
    return panels


def config_section(config: RunConfig) -> Section:
    """Return the config as TOML, only what differs from the defaults."""
    note = Text(text="Only what differs from the defaults.", tone="note")
    return Section(title="Config", parts=[note, Code(text=to_toml(config))], folded=True)
