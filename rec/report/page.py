"""The HTML report of a run: one file without outside parts, from what evaluation has filed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from rec.evaluation.headline import label, one_fact, settings_in_words, summarise, value_in_words
from rec.evaluation.profiles import profiles
from rec.evaluation.run import GENERATED, SYNTHETIC, load_run, read_config, read_numbers, seed_folders
from rec.report.encoders import filed_sections
from rec.report.html import page
from rec.report.loss_terms import in_words
from rec.report.opening import comparisons, explained, opening
from rec.report.origin import Origin, data_name, origin_of, system_name
from rec.report.selection import of_all_candidates, selected, without_metrics
from rec.report.verdict import filed_verdict
from rec.sections import Lines, LineSeries, Mark, Section, Table, Text, counted, from_plain, number, sentence
from rec.storage import Storage
from rec.strict import resolve

Numbers = dict[str, Any]
LOSSES = "Every part of the loss by its name, averaged over an epoch, before its weight."
History = Sequence[Mapping[str, Any]]


def write_report(folder: str, split: str = "test", seeds: int = 0, users: Sequence[str] = ()) -> str:
    """Write a report into a run's folder and return its path: `report.html`, of N seeds `report-N-seeds.html`.

    That of another split than test says which: `report-val.html`.

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
    measured = [read_numbers(part, split) for part in folders]
    first, config, storage = Storage(folders[0]), read_config(folders[0]), Storage(folder)
    history = first.read_json("history.json")
    origin = origin_of(folder, folders, config, split)
    dropped = of_all_candidates(list(measured[0]["metrics"]), origin.counts.get("items"))
    results = [without_metrics(numbers, dropped) for numbers in measured]
    dropped -= results[0]["metrics"].keys()
    filed = from_plain(first.read_json(f"evaluation/{split}/sections.json"))
    words = resolve(config.system).loss_terms
    panels = curves(history, config.train.metric, results[0]["directions"], words)
    alone = profiles(load_run(folders[0], ()), split, users, measured[0]) if users else []
    told = [*selected(filed, dropped), *filed_sections(storage)]
    sections = [
        *alone,
        *filed_verdict(storage),
        metrics_section(results, _left_out(dropped, origin)),
        *panels,
        *told,
        all_numbers(results),
        origin.config_section(),
    ]
    text = page(
        f"{system_name(config)} on {data_name(config)}",
        opening(results, origin, storage),
        sections,
        facts=facts(results, origin, str(history[-1].get("metric", config.train.metric))),
        notices=[sentence(n) for n in (results[0]["notice"], *results[0]["notes"]) if is_warning(n, results[0])],
        command=origin.command(),
        command_does=origin.command_does(),
    )
    of_seeds = [] if folders == [folder] else [counted(len(folders), "seed").replace(" ", "-")]
    name = "-".join(["report", *([] if split == "test" else [split]), *of_seeds]) + ".html"
    storage.write(name, text.encode())
    return storage.uri_of(name)


def _left_out(dropped: Collection[str], origin: Origin) -> str:
    """Return which metrics a page leaves out, and why; empty where none is."""
    if not dropped:
        return ""
    items = counted(origin.counts["items"], "item")
    cuts = sorted({int(name.rpartition("@")[2]) for name in dropped})
    return f"Metrics of the first {' or '.join(map(str, cuts))} places are left out: there are {items} in all."


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


def metrics_section(results: Sequence[Numbers], left_out: str = "") -> Section:
    """Return the metrics that tell most, with intervals or the spread over seeds, and what must be known of them."""
    first = results[0]
    spread = "as mean and standard deviation over seeds" if len(results) > 1 else "with its 95 % bootstrap interval"
    text = f"Averages over examples, each {spread}."
    if any(len(names) > 1 for names in _facts(results, first["shown"]).values()):
        text += " Metrics joined by = have the same value for every example here."
    columns = comparisons(first, first["shown"])
    beside = explained(columns, first["shown"])
    text = " ".join(part for part in (text, beside, left_out) if part)
    parts: list[Any] = [Text(text=text, tone="note"), _table(results, first["shown"], columns)]
    parts += [Text(text=sentence(note), tone="note") for note in first["notes"] if not is_warning(note, first)]
    return Section(title="Metrics", parts=parts)


def all_numbers(results: Sequence[Numbers]) -> Section:
    """Return the metrics that are not among those that tell most."""
    told = {name for names in _facts(results, results[0]["shown"]).values() for name in names}
    rest = [name for name in summarise(results) if name not in told]
    return Section(title="All other numbers", parts=[_table(results, rest, comparisons(results[0], rest))], folded=True)


def _facts(results: Sequence[Numbers], names: Sequence[str]) -> dict[str, list[str]]:
    """Return some metrics, each with all that are the same."""
    summary = summarise(results)
    every = one_fact([name for name in (*names, *summary) if name in summary], results[0].get("same", {}))
    return {name: same for name, same in every.items() if name in names}


def _table(results: Sequence[Numbers], names: Sequence[str], columns: Sequence[tuple[str, dict[str, str]]]) -> Table:
    first, summary, meanings = results[0], summarise(results), results[0].get("meanings", {})
    rows = []
    for name, same in _facts(results, names).items():
        told = [values.get(name, "-") for _, values in columns]
        words = label(same, first["directions"])
        rows.append([words, value_in_words(name, results, summary), *told, meanings.get(name, "")])
    run = "mean of seeds" if len(results) > 1 else "this run"
    return Table(head=["metric", run, *(head for head, _ in columns), "what it is"], rows=rows)


def curves(history: History, metric: str, directions: Mapping[str, bool], words: Mapping[str, str]) -> list[Section]:
    """Return, per phase, the training loss and the metric of validation over epochs.

    Args:
        history: A record of each evaluation in training.
        metric: What validation chose by.
        directions: Whether more of a metric is better.
        words: What the parts of the loss are, as a system's `loss_terms`.
    """
    found = []
    phases = list(dict.fromkeys(record["phase"] for record in history))
    for phase in phases:
        records = [record for record in history if record["phase"] == phase]
        name = records[0].get("phase_name", f"phase {phase + 1}")
        title = "Learning curves" if len(phases) == 1 else f"Learning curves of phase {name!r}"
        found.append(Section(title=title, parts=_panels(records, metric, directions, words)))
    return found


def _panels(records: History, metric: str, directions: Mapping[str, bool], words: Mapping[str, str]) -> list[Lines]:
    x = [record["epoch"] for record in records]
    losses = list(dict.fromkeys(name for record in records for name in record if name.startswith("loss/")))
    series = [LineSeries(name=n.removeprefix("loss/"), x=x, y=[r.get(n, np.nan) for r in records]) for n in losses]
    told = in_words([one.name for one in series], words)
    caption = f"{LOSSES} {told}." if told else LOSSES
    panels = [Lines(title="training loss", caption=caption, series=series, x_axis="epoch", y_axis="loss")]
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
