"""The HTML report of a run: one file without outside parts, from what evaluation has filed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rec.evaluation.headline import (
    headline,
    label,
    one_fact,
    settings_in_words,
    simple_answers,
    summarise,
    value_in_words,
)
from rec.evaluation.profiles import profiles
from rec.evaluation.run import GENERATED, SYNTHETIC, load_run, read_config, read_numbers, seed_folders
from rec.report.encoders import filed_sections
from rec.report.html import page
from rec.report.origin import Origin, data_name, origin_of, system_name
from rec.report.verdict import filed_verdict
from rec.sections import Lines, LineSeries, Mark, Section, Table, Text, from_plain, number, sentence
from rec.storage import Storage

Numbers = dict[str, Any]
LOSSES = "Every part of the loss by its name, averaged over an epoch, before its weight."
History = Sequence[Mapping[str, Any]]


def write_report(folder: str, split: str = "test", seeds: int = 0, users: Sequence[str] = ()) -> str:
    """Write `report.html` into a run's folder and return its path.

    Args:
        folder: Of the run, or of its seeds.
        split: What it was measured on.
        seeds: So many of its seeds, 0 to N - 1, are told; 0 takes all there are.
        users: Ids of those who are told of one by one, as the first seed's model sees them.

    Raises:
        EvaluationError: the run was not evaluated.
        RequestError: there is no such user, or the system tells nothing of single ones.
    """
    folders = seed_folders(folder, seeds)
    results = [read_numbers(part, split) for part in folders]
    first, config = Storage(folders[0]), read_config(folders[0])
    history = first.read_json("history.json")
    origin = origin_of(folder, folders, config, split)
    filed = from_plain(first.read_json(f"evaluation/{split}/sections.json"))
    panels = curves(history, config.train.metric, results[0]["directions"])
    alone = profiles(load_run(folders[0], ()), split, users, results[0]) if users else []
    told = [*filed, *filed_sections(Storage(folder))]
    sections = [
        *alone,
        *filed_verdict(Storage(folder)),
        metrics_section(results),
        *panels,
        *told,
        all_numbers(results),
        origin.config_section(),
    ]
    text = page(
        f"{system_name(config)} on {data_name(config)}",
        " ".join([headline(results), *origin.cost()]),
        sections,
        facts=facts(results, origin, str(history[-1].get("metric", config.train.metric))),
        notices=[sentence(n) for n in (results[0]["notice"], *results[0]["notes"]) if is_warning(n, results[0])],
        command=origin.command(),
    )
    storage = Storage(folder)
    storage.write("report.html", text.encode())
    return storage.uri_of("report.html")


def is_warning(note: str, numbers: Numbers) -> bool:
    """Return whether a note must be read before everything else."""
    return note != "" and note in (numbers["notice"], GENERATED, SYNTHETIC)


def facts(results: Sequence[Numbers], origin: Origin, metric: str) -> list[tuple[str, str]]:
    """Return what was measured, and how."""
    split, seeds = results[0]["split"], ", ".join(str(result["seed"]) for result in results)
    read = ", read once for the checkpoint that validation chose" if split == "test" else ""
    return [
        ("data", origin.data()),
        ("split", f"{split}{read}"),
        ("checkpoint", f"step {results[0]['step']:,}, best {metric} on validation"),
        ("seeds" if len(results) > 1 else "seed", seeds),
        *(("measured", line) for line in settings_in_words(results[0])),
        *origin.facts(),
    ]


def metrics_section(results: Sequence[Numbers]) -> Section:
    """Return the metrics that tell most, with intervals or the spread over seeds, and what must be known of them."""
    first = results[0]
    spread = "as mean and standard deviation over seeds" if len(results) > 1 else "with its 95 % bootstrap interval"
    text = f"Averages over examples, each {spread}."
    if any(len(names) > 1 for names in _facts(results, first["shown"]).values()):
        text += " Metrics joined by = have the same value for every example here."
    parts: list[Any] = [Text(text=text, tone="note"), _table(results, first["shown"])]
    parts += [Text(text=sentence(note), tone="note") for note in first["notes"] if not is_warning(note, first)]
    return Section(title="Metrics", parts=parts)


def all_numbers(results: Sequence[Numbers]) -> Section:
    """Return the metrics that are not among those that tell most."""
    told = {name for names in _facts(results, results[0]["shown"]).values() for name in names}
    rest = [name for name in summarise(results) if name not in told]
    return Section(title="All other numbers", parts=[_table(results, rest)], folded=True)


def _facts(results: Sequence[Numbers], names: Sequence[str]) -> dict[str, list[str]]:
    """Return some metrics, each with all that are the same."""
    summary = summarise(results)
    every = one_fact([name for name in (*names, *summary) if name in summary], results[0].get("same", {}))
    return {name: same for name, same in every.items() if name in names}


def _table(results: Sequence[Numbers], names: Sequence[str]) -> Table:
    first, summary, meanings = results[0], summarise(results), results[0].get("meanings", {})
    head, beside = simple_answers(first, names)
    rows = []
    for name, same in _facts(results, names).items():
        told = [beside.get(name, "-")] if head else []
        words = label(same, first["directions"])
        rows.append([words, value_in_words(name, results, summary), *told, meanings.get(name, "")])
    columns = ["metric", "mean of seeds" if len(results) > 1 else "this run", *([head] if head else []), "what it is"]
    return Table(head=columns, rows=rows)


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
    panels = [Lines(title="training loss", caption=LOSSES, series=series, x_axis="epoch", y_axis="loss")]
    shown = next((name for name in (records[-1].get("metric"), metric, "val_loss") if name in records[-1]), None)
    if shown is not None:
        higher = directions.get(shown, not shown.startswith(("loss", "val_loss")))
        known = [record for record in records if record.get(shown) is not None]
        marks = []
        if known:
            best = (max if higher else min)(known, key=lambda record: record[shown])
            marks = [Mark(x=best["epoch"], y=best[shown], name=f"best {number(best[shown])}")]
        line = LineSeries(name="", x=x, y=[record.get(shown, np.nan) for record in records])
        title, better = f"validation {shown.removeprefix('val_')}", f"{'Higher' if higher else 'Lower'} is better."
        panels.append(Lines(title=title, caption=better, series=[line], x_axis="epoch", y_axis=shown, marks=marks))
    return panels
