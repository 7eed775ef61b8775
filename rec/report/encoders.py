"""Encoders of texts side by side: one run, trained and measured on what each of them makes of the same texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rec.config import RunConfig, from_table, to_table
from rec.data.config import ENDPOINT
from rec.data.modalities.requests_config import HTTP_STARTS
from rec.data.prepared import Prepared
from rec.data.stages.text_vectors import ENCODING
from rec.errors import ConfigError, EvaluationError
from rec.evaluation.compare import compare_seeds
from rec.evaluation.headline import label, one_fact, settings_in_words, summarise, value_in_words
from rec.evaluation.measurement import read_measurement
from rec.evaluation.run import evaluate_run, read_numbers
from rec.filesystems import beside, last_name, uri_below
from rec.progress import PLAIN_WIDTH, terminal_width
from rec.report.html import page
from rec.report.origin import data_name, system_name
from rec.report.sweep import RESAMPLES
from rec.report.text import paragraph, table
from rec.report.text_map import text_map
from rec.sections import Part, Section, Table, Text, counted, from_plain, number, sentence, to_plain
from rec.storage import Storage
from rec.strict import idle_keys

FILE, MAP = "encoders.json", "map.json"
SPLITS = {"val": "validation", "test": "test"}
METRICS = 2
"""Metrics of a table; all are in the file."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Variant:
    """An encoder, and the run on what it makes."""

    name: str
    config: RunConfig

    def seed(self, seed: int) -> RunConfig:
        """Return the run with a seed, in a folder of its own."""
        train = self.config.train.model_copy(update={"seed": seed})
        return self.config.model_copy(update={"train": train, "out": uri_below(self.config.out, f"seed-{seed}")})


def variants(config: RunConfig, encoders: Sequence[str]) -> list[Variant]:
    """Return a run for each encoder: "tfidf", "hashing", the name or path of a model, "endpoint", or URL#MODEL.

    Keys of `[data.text]` that have no effect beside an encoder are left out. Each has a data set beside the config's,
    and a folder below that of its runs.

    Raises:
        ConfigError: the config has no texts, one is named twice, or one cannot be by the config's other keys.
    """
    if config.data.text is None:
        raise ConfigError("data.text: is not set: there are no texts to encode")
    found: list[Variant] = []
    for encoder in encoders:
        slug = re.sub(r"[^a-z0-9]+", "-", encoder.lower().partition("://")[2] or encoder.lower()).strip("-")
        told = to_table(config)
        told["data"]["text"] = _with_encoder(told["data"]["text"], encoder)
        told["data"]["root"] = beside(config.data.root, f"{last_name(config.data.root)}-{slug}")
        told["out"] = uri_below(uri_below(config.out, "encoders"), slug)
        for key in idle_keys(from_table(told)):
            if key.startswith("data.text."):
                told["data"]["text"].pop(key.split(".")[2], None)
        made = from_table(told)
        if any(other.config.out == made.out for other in found):
            raise ConfigError(f"--encoders: {encoder!r} is there twice, or cannot be told from another one")
        found.append(Variant(encoder, made))
    return found


def _with_encoder(text: Mapping[str, Any], encoder: str) -> dict[str, Any]:
    """Return `[data.text]` with another encoder."""
    if not encoder.startswith(HTTP_STARTS):
        return {**text, "encoder": encoder}
    url, _, model = encoder.partition("#")
    given = {"url": url} | ({"model": model} if model else {})
    return {**text, "encoder": ENDPOINT, "endpoint": {**text.get("endpoint", {}), **given}}


def compare_encoders(
    config: RunConfig,
    encoders: Sequence[str],
    seeds: int,
    prepare: Callable[[RunConfig], None],
    train: Callable[[RunConfig], None],
    say: Say,
) -> tuple[str, dict[str, Any]]:
    """Encode, train and measure with every encoder; return the table as text, and all that is told.

    What is done already is kept: data sets, runs and measurements lie in folders of their own.
    """
    chosen = variants(config, encoders)
    measured: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for variant in chosen:
        say(f"{variant.name}: {variant.config.data.root}")
        prepare(variant.config)
        measured[variant.name] = {split: [] for split in SPLITS}
        for seed in range(seeds):
            run = variant.seed(seed)
            say(f"{variant.name}, seed {seed}: {run.out}")
            train(run)
            for split in SPLITS:
                measured[variant.name][split].append(_measured(run, split))
    first = chosen[0]
    rows = [_row(variant, measured[variant.name], first, seeds) for variant in chosen]
    one = measured[first.name]["test"][0]
    told = _table(rows, one, first.name)
    notes = _notes(rows, one, seeds)
    sections = [
        Section(title="Encoders", parts=[told, *(Text(text=sentence(note), tone="note") for note in notes)]),
        *(Section(title=f"Texts as {variant.name} sees them", parts=_map(variant)) for variant in chosen),
    ]
    sections = [section for section in sections if section.parts]
    found = {"rows": rows, "notes": notes, "sections": to_plain(sections)}
    storage = Storage(config.out)
    storage.write_json(FILE, found)
    storage.write("encoders.txt", f"{_text(told, notes, PLAIN_WIDTH)}\n".encode())
    title = f"Encoders of {data_name(config)} for {system_name(config)}"
    storage.write("encoders.html", page(title, " ".join(map(sentence, notes)), sections).encode())
    return _text(told, notes, terminal_width()), found


def filed_sections(storage: Storage) -> Sequence[Section]:
    """Return what was told of encoders in a run's folder; nothing where none were compared."""
    return from_plain(storage.read_json(FILE)["sections"]) if storage.exists(FILE) else ()


def _measured(run: RunConfig, split: str) -> dict[str, Any]:
    """Return the metrics of a run's best checkpoint, measured now unless they are on file."""
    try:
        return read_numbers(run.out, split)
    except EvaluationError:
        return evaluate_run(run, split)


def _row(variant: Variant, measured: Mapping[str, list[dict[str, Any]]], first: Variant, seeds: int) -> dict[str, Any]:
    """Return what is told of one encoder."""
    data = Prepared.open(variant.config.data.root)
    measurement = read_measurement(Storage(variant.seed(0).out), "test")
    row: dict[str, Any] = {
        "encoder": variant.name,
        "encoding": data.storage.read_json(ENCODING),
        "parameters": measurement["parameters"] if measurement else None,
        "metrics": {split: summarise(found) for split, found in measured.items()},
        "told": {},
        "difference": "",
    }
    for split, found in measured.items():
        row["told"][split] = {n: value_in_words(n, found, row["metrics"][split]) for n in row["metrics"][split]}
    if variant is not first:
        name = measured["test"][0]["shown"][0]
        ours, theirs = ([one.seed(seed).out for seed in range(seeds)] for one in (variant, first))
        compared = compare_seeds(ours, theirs, RESAMPLES, names=(variant.name, first.name))
        ends = [one["difference"] for one in compared if one["metric"] == name and one["difference"]]
        row["difference"] = "{mean:+.4f} ({low:+.4f} to {high:+.4f})".format(**ends[0]) if ends else "-"
    return row


def _table(rows: Sequence[Mapping[str, Any]], one: Mapping[str, Any], first: str) -> Table:
    facts = dict(list(one_fact(one["shown"], one.get("same", {})).items())[:METRICS])
    head = ["encoder", "encoded in s", "width", "parameters"]
    head += [f"{label(names, one['directions'])} on {SPLITS[split]}" for split in SPLITS for names in facts.values()]
    head.append(f"{one['shown'][0]} on test - {first!r} (95 % interval)")
    lines = []
    for row in rows:
        encoding, parameters = row["encoding"], row["parameters"]
        size = "-" if parameters is None else f"{parameters:,}"
        line = [row["encoder"], number(encoding["seconds"], 2), f"{encoding['width']:,}", size]
        line += [row["told"][split].get(name, "-") for split in SPLITS for name in facts]
        lines.append([*line, row["difference"]])
    return Table(head=head, rows=lines)


def _notes(rows: Sequence[Mapping[str, Any]], one: Mapping[str, Any], seeds: int) -> list[str]:
    over = f"{seeds} seeds, mean and standard deviation over seeds" if seeds > 1 else "one seed"
    notes = [
        f"{counted(one['examples'], 'example')} of the test split, {over}; the same texts, split and keys but for the "
        f"encoder; intervals by a paired bootstrap over examples, {RESAMPLES:,} resamples"
    ]
    name = one["shown"][0]
    known = {row["encoder"]: row["metrics"]["val"].get(name, {}).get("mean") for row in rows}
    there = {encoder: value for encoder, value in known.items() if value is not None}
    if len(there) > 1:
        best = (max if one["directions"].get(name, True) else min)(there, key=there.__getitem__)
        notes.append(f"by {name} on validation, {best!r} is to be chosen; test tells how good it is")
    if any(row["encoding"].get("from cache") for row in rows):
        notes.append("seconds of an endpoint are those of texts that were not asked for before")
    return [*notes, *settings_in_words(one), *one["notes"]]


def _map(variant: Variant) -> list[Part]:
    """Return figures of a data set's texts, made once."""
    data, storage = Prepared.open(variant.config.data.root), Storage(variant.config.out)
    identity = data.identity()
    if storage.exists(MAP) and (told := storage.read_json(MAP))["data"] == identity:
        return [part for section in from_plain(told["sections"]) for part in section.parts]
    parts = text_map(data)
    storage.write_json(MAP, {"data": identity, "sections": to_plain([Section(title="Texts", parts=parts)])})
    return parts


def _text(told: Table, notes: Sequence[str], width: int) -> str:
    return "\n".join([table(told.head, told.rows, width), *(paragraph(sentence(note), width) for note in notes)])
