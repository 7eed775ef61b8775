"""Variants of one run, trained and measured under one protocol, side by side: `rec sweep`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rec.config import RunConfig, override
from rec.errors import ConfigError, EvaluationError
from rec.evaluation.compare import compare
from rec.evaluation.headline import beside, label, one_fact, settings_in_words, summarise, value_in_words
from rec.evaluation.run import evaluate_run, read_numbers
from rec.progress import PLAIN_WIDTH, terminal_width
from rec.report.html import page
from rec.report.origin import data_name, system_name
from rec.report.text import paragraph, table
from rec.sections import Lines, LineSeries, Section, Table, counted, number, sentence
from rec.storage import Storage, uri_below
from rec.strict import resolve

RESAMPLES = 10_000


def variants(config: RunConfig, only: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return the overrides of each variant, the one that others are compared with first.

    Raises:
        ConfigError: the system declares none, or one that was asked for is not there.
    """
    known = resolve(config.system).Config.VARIANTS
    if not known:
        raise ConfigError(f"{config.system}: declares no VARIANTS to sweep over")
    if unknown := [name for name in only if name not in known]:
        raise ConfigError(f"--only: no variant {unknown[0]!r}; there are {'; '.join(known)}")
    return {name: words for name, words in known.items() if not only or name in only}


def sweep(
    config: RunConfig, only: Sequence[str], seeds: int, train: Callable[[RunConfig], None], say: Callable[[str], None]
) -> str:
    """Train and measure every variant with every seed and return the table; what is done already is kept."""
    chosen = variants(config, only)
    results: dict[str, list[dict[str, Any]]] = {}
    for name, words in chosen.items():
        results[name] = []
        for seed in range(seeds):
            place = [f"out={uri_below(folder(config, name), f'seed-{seed}')}", f"train.seed={seed}"]
            run = override(config, [*words, *place])
            say(f"{name}, seed {seed}: {run.out}")
            train(run)
            results[name].append(measured(run))
    first = next(iter(chosen))
    names = with_tracks({name: found[0] for name, found in results.items()})
    rows = [_row(config, name, found, first) | {"variant": names[name]} for name, found in results.items()]
    one = results[first][0]
    over = f"{seeds} seeds, mean and standard deviation over seeds" if seeds > 1 else "one seed"
    drawn = f"intervals by a paired bootstrap over examples of the mean over seeds, {RESAMPLES:,} resamples"
    notes = [f"{counted(one['examples'], 'example')} of the test split, {over}; {drawn}"]
    notes += [*settings_in_words(one), *one["notes"]]
    told = beside(one["shown"][0], results[first])
    notes += [f"{one['shown'][0]} of {first!r} is {told}"] if told else []
    storage = Storage(config.out)
    storage.write_json("sweep.json", {"rows": rows, "notes": notes})
    storage.write("sweep.txt", f"{_text(rows, notes, one, first, PLAIN_WIDTH)}\n".encode())
    figures = [figure for task in resolve(config.system).tasks for figure in trade_off(rows, one, task.trade_off)]
    if figures:
        sections = [
            Section(title="Trade-off", parts=figures),
            Section(title="Variants", parts=[_table(rows, one, first)]),
        ]
        text = page(
            f"Variants of {system_name(config)} on {data_name(config)}",
            " ".join(sentence(note) for note in notes),
            sections,
        )
        storage.write("sweep.html", text.encode())
    return _text(rows, notes, one, first, terminal_width())


def with_tracks(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return what each variant is called: with the settings by which it may not be ranked beside another."""
    told = {name: numbers.get("apart", {}) for name, numbers in measured.items()}
    found = {}
    for name, apart in told.items():
        own = [
            f"{key} {value}"
            for task, settings in apart.items()
            for key, value in settings.items()
            if any(other.get(task, {}).get(key) != value for other in told.values())
        ]
        found[name] = f"{name} ({', '.join(own)})" if own else name
    return found


def trade_off(rows: list[dict[str, Any]], one: Mapping[str, Any], metrics: tuple[str, str] | None) -> list[Lines]:
    """Return a figure of two metrics over variants, and simple answers in grey; none where fewer than two have both."""
    if metrics is None:
        return []
    x, y = metrics
    points = [(row["variant"], {name: told["mean"] for name, told in row["metrics"].items()}, False) for row in rows]
    points += [(whose, values, True) for whose, values in one["baselines"].items()]
    there = [point for point in points if all(point[1].get(name) is not None for name in metrics)]
    if sum(not grey for *_, grey in there) < 2:
        return []
    better = ["more" if one["directions"].get(name, True) else "less" for name in metrics]
    series = [
        LineSeries(name=name, x=[values[x]], y=[values[y]], style="points", muted=grey) for name, values, grey in there
    ]
    caption = f"One point per variant, simple answers in grey; {better[0]} {x} and {better[1]} {y} is better."
    least = min(values[y] for _, values, _ in there)
    return [
        Lines(title=f"{y} beside {x}", series=series, x_axis=x, y_axis=y, caption=caption, low=least * 0.9, wide=True)
    ]


def _table(rows: list[dict[str, Any]], one: Mapping[str, Any], first: str) -> Table:
    head, lines = _cells(rows, one, first)
    return Table(head=head, rows=lines)


def _text(rows: list[dict[str, Any]], notes: list[str], one: Mapping[str, Any], first: str, width: int) -> str:
    """Return the table of variants, and of simple answers below them."""
    head, lines = _cells(rows, one, first)
    return "\n".join([table(head, lines, width), *(paragraph(sentence(note), width) for note in notes)])


def _cells(rows: list[dict[str, Any]], one: Mapping[str, Any], first: str) -> tuple[list[str], list[list[str]]]:
    """Return head and lines: variants, and simple answers below them."""
    facts = one_fact(one["shown"], one.get("same", {}))
    columns = [label(names, one["directions"]) for names in facts.values()]
    head = ["variant", *columns, f"{one['shown'][0]} - {first!r} (95 % interval)"]
    lines = [[row["variant"], *(row.get(name, "-") for name in facts), row["difference"]] for row in rows]
    for whose, values in one["baselines"].items():
        lines.append([f"({whose})", *(number(values.get(name)) for name in facts), ""])
    return head, lines


def folder(config: RunConfig, name: str) -> str:
    """Return where a variant's seeds lie."""
    return uri_below(config.out, re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))


def measured(run: RunConfig) -> dict[str, Any]:
    """Return the metrics of a run's best checkpoint on test, measured now unless they are on file."""
    try:
        return read_numbers(run.out, "test")
    except EvaluationError:
        return evaluate_run(run, "test")


def _row(config: RunConfig, name: str, found: list[dict[str, Any]], first: str) -> dict[str, Any]:
    summary = summarise(found)
    row: dict[str, Any] = {"variant": name, "metrics": summary, "difference": ""}
    for metric in found[0]["shown"]:
        if metric in summary:
            row[metric] = value_in_words(metric, found, summary)
    if name != first:
        compared = compare(folder(config, name), folder(config, first), RESAMPLES)
        told = [r["difference"] for r in compared if r["metric"] == found[0]["shown"][0]]
        row["difference"] = "{mean:+.4f} ({low:+.4f} to {high:+.4f})".format(**told[0]) if any(told) else "-"
    return row
