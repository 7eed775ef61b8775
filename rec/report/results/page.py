"""Tables of results as Markdown, and the command that writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rec.evaluation.headline import label, one_fact, settings_in_words
from rec.json_text import json_text
from rec.report.origin import machine_in_words
from rec.report.results.find import find
from rec.report.results.lines import groups
from rec.report.results.tables import RESAMPLES, results
from rec.report.text import bytes_text
from rec.sections import counted, interval, number, sentence
from rec.storage import Storage

UNKNOWN = "not recorded"
MEANING = (
    "Several seeds: mean ± standard deviation. One seed: its value with the 95 % bootstrap interval over examples. The "
    "best of each metric is **bold**. *Simple answers*, which need no model, were measured on the same examples."
)
SHIPPED = "rec/configs/"
"""Where files lie that a reader finds at the commit; of others a page tells every key."""
HASH = 12
"""Digits of a hash that a page shows."""
Plain = Mapping[str, Any]


def write_results(
    folders: Sequence[str], name: str, to: str, baseline: str = "", resamples: int = RESAMPLES
) -> list[str]:
    """Write `NAME.md` and `NAME.json` on the runs below some folders; return their paths.

    Raises:
        EvaluationError: there is no run that could stand in a table.
        RequestError: no line is the baseline that was asked for.
    """
    runs, passed_over = find(folders)
    found, repeated = groups(runs)
    told = results(name, found, [*passed_over, *repeated], baseline, resamples)
    storage = Storage(to)
    storage.write_json(f"{name}.json", told)
    storage.write(f"{name}.md", markdown(told).encode())
    return [f"{to.rstrip('/')}/{name}.{kind}" for kind in ("md", "json")]


def markdown(told: Plain) -> str:
    """Return a page of results as Markdown."""
    runs = sum(len(line["runs"]) for table in told["tables"] for line in table["lines"])
    parts = [
        f"# Results: {told['name']}",
        f"Made by `rec results` from the files of {counted(runs, 'run')} measured on {told['split']}, not by hand. "
        f"{MEANING}",
    ]
    for table in told["tables"]:
        parts += _table(table, told["tables"])
    if told["passed_over"]:
        parts += ["## In no table", "\n".join(f"- `{one['run']}`: {one['reason']}" for one in told["passed_over"])]
    return "\n\n".join(parts) + "\n"


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _table(table: Plain, tables: Sequence[Plain]) -> list[str]:
    split = table["split"]
    protocol = split["protocol"] or f"split {split['sha256'][:HASH]}"
    others = [other for other in tables if other["split"] == split and other is not table]
    evaluate = {k: v for k, v in table["evaluate"].items() if any(o["evaluate"].get(k) != v for o in others)}
    keys = ", ".join(
        [*(f"evaluate.{key}={_value(value)}" for key, value in evaluate.items()), *_own_settings(table, others)]
    )
    lead = [
        counted(table["examples"], "example"),
        *(counted(count, _spaced(name).removesuffix("s"), _spaced(name)) for name, count in table["counts"].items()),
    ]
    lead += [f"split `{split['sha256'][:HASH]}`"]
    title = f"{', '.join(table['data'])}: {protocol}"
    parts = [f"## {title}{', ' + keys if keys else ''}", f"{'; '.join(lead)}."]
    if others:
        own = _own_settings(table, others)
        same = [*(["other keys of `[evaluate]`"] if evaluate else []), *(["other settings"] if own else [])]
        how = " or ".join(same) or "another number of examples"
        parts.append(f"Runs of this split that were measured with {how} stand in a table of their own.")
    parts += [sentence(line) for line in settings_in_words({"settings": table["apart"]})]
    if table["told_more"]:
        parts.append(
            "Simple answers that are marked as a leak are told more of the truth than the models of this table."
        )
    if not table["split_recorded"]:
        parts.append(
            "Some runs have not recorded their split: for them it is that of their data set as it lies there now."
        )
    parts += [_metrics(table), *(f"*{sentence(note)}*" for note in table["notes"])]
    if reference := table["reference"]:
        asked = "" if table["reference_asked"] else ", the best by the first metric"
        text = f"Differences are to {reference}{asked}: paired bootstrap over examples of the mean over seeds."
        parts.append(text)
    parts += ["### By seed", _seeds(table), "### Where the lines come from"]
    return [*parts, *(_origin(place, line) for place, line in enumerate(table["lines"], 1))]


def _own_settings(table: Plain, others: Sequence[Plain]) -> list[str]:
    """Return the settings of a table that others of its split do not have, as "track leak-free"."""
    return [
        f"{name} {value}"
        for task, own in table["apart"].items()
        for name, value in own.items()
        if any(other["apart"].get(task, {}).get(name) != value for other in others)
    ]


def _metrics(table: Plain) -> str:
    facts, lines, reference = _facts(table), table["lines"], table["reference"]
    names, heads = list(facts), list(facts.values())
    place = next((str(n) for n, line in enumerate(lines, 1) if line["label"] == reference), "")
    difference = [f"{names[0]} less that of {place}"] if reference else []
    head = ["", "model", "seeds", *heads, *difference, "training", "evaluation", "peak memory", "parameters"]
    rows = []
    for index, line in enumerate(lines, 1):
        cells = [_bold(_metric(line, name, table), name, line["label"], table) for name in names]
        gain = [_gain(line["difference"].get(names[0]), line["label"] == reference)] if reference else []
        seeds = ", ".join(str(run["seed"]) for run in line["runs"])
        rows.append([str(index), line["label"], seeds, *cells, *gain, *_costs(line["runs"])])
    for simple in table["baselines"]:
        cells = [_bold(number(simple["metrics"].get(name)), name, simple["label"], table) for name in names]
        rows.append(["", f"*{simple['label']}*", "", *cells, *[""] * (len(head) - 3 - len(names))])
    return grid(head, rows)


def _facts(table: Plain) -> dict[str, str]:
    """Return the metrics to show, by name with their heads; what is the same in all lines stands once."""
    directions = {m["name"]: m["higher_is_better"] for m in table["metrics"]}
    return {name: label(same, directions) for name, same in one_fact(directions, table["same"]).items()}


def _ends(run: Plain, name: str, table: Plain) -> Plain | None:
    """Return the interval of a metric, or of one that is the same, where the run has one."""
    same = table["same"]
    names = [name, *(m["name"] for m in table["metrics"] if same.get(m["name"], m["name"]) == same.get(name, name))]
    return next((run["interval"][n] for n in names if run["interval"].get(n)), None)


def _metric(line: Plain, name: str, table: Plain) -> str:
    found = line["metrics"].get(name)
    if found is None:
        return "-"
    if len(line["runs"]) > 1:
        return f"{number(found['mean'])} ± {number(found['sd'])}"
    ends = _ends(line["runs"][0], name, table)
    return interval(**ends) if ends else number(found["mean"])


def _bold(text: str, name: str, label: str, table: Plain) -> str:
    if label not in table["best"][name]:
        return text
    value, space, rest = text.partition(" ")
    return f"**{value}**{space}{rest}"


def _gain(found: Plain | None, is_reference: bool) -> str:
    if found is None:
        return "" if is_reference else "-"
    return f"{found['mean']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


def _costs(runs: Sequence[Plain]) -> list[str]:
    """Return seconds of training and of evaluation, the peak of training's memory, and parameters, over seeds."""
    training, evaluation = ([run[kind] for run in runs] for kind in ("training", "evaluation"))
    memory = [cost.get("peak_memory_bytes") if cost else None for cost in training]
    gpu = [cost["peak_gpu_bytes"] for cost in training if cost and "peak_gpu_bytes" in cost]
    known = [size for size in memory if size is not None]
    peak = bytes_text(max(known)) + (f", GPU {bytes_text(max(gpu))}" if gpu else "") if known else UNKNOWN
    counts = sorted({run["parameters"] for run in runs if run["parameters"] is not None})
    read = any(cost and cost["from_predictions"] for cost in evaluation)
    return [
        _seconds(training, lambda cost: cost["whole"]),
        _seconds(evaluation, lambda _: True) + (" (from predictions)" if read else ""),
        peak,
        ", ".join(f"{count:,}" for count in counts) or UNKNOWN,
    ]


def _seconds(costs: Sequence[Plain | None], whole: Callable[[Plain], bool]) -> str:
    known = [cost for cost in costs if cost is not None]
    if not known:
        return UNKNOWN
    mean = sum(cost["seconds"] for cost in known) / len(known)
    return ("" if all(whole(cost) for cost in known) else "at least ") + f"{mean:,.1f} s"


def _seeds(table: Plain) -> str:
    facts = _facts(table)
    rows = []
    for index, line in enumerate(table["lines"], 1):
        for run in line["runs"]:
            ends = [_ends(run, name, table) for name in facts]
            cells = [interval(**e) if e else number(run["metrics"].get(n)) for n, e in zip(facts, ends, strict=True)]
            rows.append(
                [f"{index} {line['label']}", str(run["seed"]), *cells, f"{run['step']:,}", f"`{run['folder']}`"]
            )
    return grid(["model", "seed", *facts.values(), "step", "folder"], rows)


def _origin(place: int, line: Plain) -> str:
    """Return what made a line: config, code, machines; which seeds, where they differ."""
    told: dict[str, tuple[list[str], list[int]]] = {}
    for run in line["runs"]:
        commands = run["training"]["commands"] if run["training"] else [None]
        made = [
            ("config", _config(run)),
            *(("trained", _by(c)) for c in commands),
            ("measured", _by(run["evaluation"])),
        ]
        for what, text in made:
            kinds, seeds = told.setdefault(text if what != "config" else f"config {text}", ([], []))
            kinds += [what] if what not in kinds else []
            seeds += [run["seed"]] if run["seed"] not in seeds else []
    entries = [f"- measured with {text}" for text in dict.fromkeys(_settings(line))]
    for text, (kinds, seeds) in told.items():
        some = f" (seed {', '.join(map(str, seeds))})" if len(seeds) < len(line["runs"]) else ""
        entries.append(f"- {text}{some}" if kinds == ["config"] else f"- {' and '.join(kinds)}{some}: {text}")
    if not all((run["file"] or "").startswith(SHIPPED) for run in line["runs"]):
        entries.append(f"- what differs from the defaults: {_words(line['keys']) or 'nothing'}")
    return f"**{place} {line['label']}**, `{line['system']}`\n\n" + "\n".join(entries)


def _settings(line: Plain) -> list[str]:
    return ["; ".join(settings_in_words(run)) for run in line["runs"] if run["settings"]]


def _config(run: Plain) -> str:
    """Return the file that a run's config is from, and what differs from it."""
    if run["file"] is None:
        return f"file {UNKNOWN}"
    return f"`{run['file']}`" + (f" with {_words(run['changes'])}" if run["changes"] else ", as it is")


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _words(keys: Plain) -> str:
    return " ".join(f"`{key}={_value(value)}`" for key, value in keys.items())


def _value(value: Any) -> str:
    return value if isinstance(value, str) else "none" if value is None else json_text(value)


def _by(record: Plain | None) -> str:
    """Return the day, code, machines and versions of a command."""
    if record is None:
        return UNKNOWN
    code = record["code"]
    commit = f"commit `{code['commit'][:HASH]}`{' (dirty)' if code['dirty'] else ''}" if code["commit"] else ""
    machines = record["machines"] if "machines" in record else [record["machine"]]
    where = list(dict.fromkeys(machine_in_words(machine) for machine in machines))
    workers = f"{counted(record['workers'], 'worker')} on " if record.get("workers") else ""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"{record['date'][:10]}, {commit or 'version ' + str(code['version'])}, {workers}{'; '.join(where)}, {versions}"
    )
