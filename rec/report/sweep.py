"""Variants of one run, trained and measured under one protocol, side by side: `rec sweep`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rec.config import RunConfig, override
from rec.errors import ConfigError, EvaluationError
from rec.evaluation.compare import compare
from rec.evaluation.headline import beside, label, one_fact, summarise, value_in_words
from rec.evaluation.run import evaluate_run, read_numbers
from rec.progress import PLAIN_WIDTH, terminal_width
from rec.report.text import paragraph, table
from rec.sections import counted, number, sentence
from rec.storage import Storage
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
            place = [f"out={folder(config, name)}/seed-{seed}", f"train.seed={seed}"]
            run = override(config, [*words, *place])
            say(f"{name}, seed {seed}: {run.out}")
            train(run)
            results[name].append(_measured(run))
    first = next(iter(chosen))
    rows = [_row(config, name, found, first) for name, found in results.items()]
    one = results[first][0]
    over = f"{seeds} seeds, mean and standard deviation over seeds" if seeds > 1 else "one seed"
    notes = [f"{counted(one['examples'], 'example')} of the test split, {over};"]
    notes.append(f"intervals by a paired bootstrap over examples of the mean over seeds, {RESAMPLES:,} resamples")
    notes += one["notes"]
    told = beside(one["shown"][0], results[first])
    notes += [f"{one['shown'][0]} of {first!r} is {told}"] if told else []
    storage = Storage(config.out)
    storage.write_json("sweep.json", {"rows": rows, "notes": notes})
    storage.write("sweep.txt", f"{_text(rows, notes, one, first, PLAIN_WIDTH)}\n".encode())
    return _text(rows, notes, one, first, terminal_width())


def _text(rows: list[dict[str, Any]], notes: list[str], one: Mapping[str, Any], first: str, width: int) -> str:
    """Return the table of variants, and of simple answers below them."""
    facts = one_fact(one["shown"], one.get("same", {}))
    columns = [label(names, one["directions"]) for names in facts.values()]
    head = ["variant", *columns, f"{one['shown'][0]} - {first!r} (95 % interval)"]
    lines = [[row["variant"], *(row.get(name, "-") for name in facts), row["difference"]] for row in rows]
    for whose, values in one["baselines"].items():
        lines.append([f"({whose})", *(number(values.get(name)) for name in facts), ""])
    return "\n".join([table(head, lines, width), *(paragraph(sentence(note), width) for note in notes)])


def folder(config: RunConfig, name: str) -> str:
    """Return where a variant's seeds lie."""
    return f"{config.out.rstrip('/')}/{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}"


def _measured(run: RunConfig) -> dict[str, Any]:
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
        measured = [r["difference"] for r in compared if r["metric"] == found[0]["shown"][0]]
        row["difference"] = "{mean:+.4f} ({low:+.4f} to {high:+.4f})".format(**measured[0]) if any(measured) else "-"
    return row
