"""The numbers of tables, as plain values: metrics over seeds, what is best, differences, costs, origins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rec.errors import EvaluationError, RequestError
from rec.evaluation.compare import compare_seeds
from rec.evaluation.headline import summarise
from rec.report.page import is_warning
from rec.report.results.find import SPLIT, PassedOver, Run
from rec.report.results.lines import Group, Line
from rec.storage import Storage, absolute
from rec.train.training_record import cost_of

RESAMPLES = 10_000
FORMAT = 1
Plain = dict[str, Any]


def results(
    name: str,
    groups: Sequence[Group],
    passed_over: Sequence[PassedOver],
    baseline: str = "",
    resamples: int = RESAMPLES,
) -> Plain:
    """Return what a page of results says.

    Args:
        name: Of the page.
        groups: The tables' lines.
        passed_over: Runs that stand in none.
        baseline: Label of the line, or end of a folder of a run, that others are compared with; empty takes the best.
        resamples: Behind every interval of a difference.

    Raises:
        RequestError: no line is called so.
    """
    tables = [_table(group, baseline, resamples) for group in groups]
    if baseline and not any(table["reference_asked"] for table in tables):
        known = "; ".join(label for group in groups for label in group.labels)
        raise RequestError(f"--baseline: no line {baseline!r}; there are {known}")
    told = [{"run": one.shown, "reason": one.reason} for one in passed_over]
    return {"format": FORMAT, "name": name, "split": SPLIT, "tables": tables, "passed_over": told}


def _table(group: Group, baseline: str, resamples: int) -> Plain:
    labels = group.labels
    lines = [_line(line, label) for line, label in zip(group.lines, labels, strict=True)]
    runs = [run for line in group.lines for run in line.runs]
    directions: dict[str, bool] = {}
    for run in runs:
        directions |= {name: run.numbers["directions"].get(name, True) for name in run.numbers["shown"]}
    shown = dict.fromkeys(name for run in runs for name in run.numbers["shown"])
    # What all lines have comes first: by the first one they are ordered and compared.
    names = sorted(shown, key=lambda name: any(name not in run.numbers["metrics"] for run in runs))
    baselines = _baselines(group, labels, names)
    more = {name for run in runs for name in run.numbers.get("told_more", ())}
    oracles = {name for run in runs for name in run.numbers.get("oracles", ())}
    fair = [entry for entry in baselines if entry["answer"] not in more | oracles]
    best = {name: _best(name, directions[name], lines, fair) for name in names}
    asked = _named(group, labels, baseline)
    reference = asked or _first_best(names, lines, directions)
    notes = _differences(group, labels, lines, reference, resamples)
    order = _order(names, lines, directions)
    told = [(run.numbers, note) for run in runs for note in (run.numbers["notice"], *run.numbers["notes"])]
    warnings = [note for numbers, note in told if is_warning(note, numbers)]
    return {
        "data": group.names,
        "counts": runs[0].data.get("counts", {}),
        "split": dict(group.split),
        "split_recorded": all(run.measurement is not None for run in runs),
        "evaluate": dict(group.evaluate),
        "apart": dict(group.apart),
        "told_more": sorted(more),
        "examples": group.examples,
        "metrics": [{"name": name, "higher_is_better": directions[name]} for name in names],
        "same": _same_metrics(names, [run.numbers for run in runs], baselines),
        "lines": [lines[place] for place in order],
        "baselines": baselines,
        "best": best,
        "reference": reference,
        "reference_asked": bool(asked),
        "notes": list(dict.fromkeys([*warnings, *notes])),
    }


def _same_metrics(names: Sequence[str], measured: Sequence[Plain], baselines: Sequence[Plain]) -> dict[str, str]:
    """Return, for every metric that in all runs and simple answers is an earlier one, the name of that one."""
    first: dict[str, str] = {}
    for place, name in enumerate(names):
        for other in names[:place]:
            classes = [numbers["same"] for numbers in measured if "same" in numbers]
            tables = [*(numbers["metrics"] for numbers in measured), *(simple["metrics"] for simple in baselines)]
            if all(same.get(name, name) == same.get(other, other) for same in classes) and all(
                metrics.get(name) is not None and metrics.get(name) == metrics.get(other) for metrics in tables
            ):
                first[name] = first.get(other, other)
                break
    return first


def _line(line: Line, label: str) -> Plain:
    return {
        "label": label,
        "system": line.first.config.system,
        "keys": dict(line.keys),
        "metrics": summarise([run.numbers for run in line.runs]),
        "difference": {},
        "runs": [_run(run) for run in line.runs],
    }


def _run(run: Run) -> Plain:
    numbers, training, measurement = run.numbers, run.training, run.measurement
    return {
        "folder": run.shown,
        "seed": run.seed,
        "step": numbers["step"],
        "metrics": numbers["metrics"],
        "interval": numbers["interval"],
        "settings": numbers.get("settings", {}),
        "parameters": (measurement or {}).get("parameters"),
        "file": (training or {}).get("file"),
        "changes": (training or {}).get("changes"),
        "training": None if training is None else cost_of(training["commands"]),
        "evaluation": measurement and {key: value for key, value in measurement.items() if key not in ("data", "keys")},
    }


def _baselines(group: Group, labels: Sequence[str], names: Sequence[str]) -> list[Plain]:
    """Return the simple answers' metrics once; where runs have measured them otherwise, once per line and value."""
    found: dict[str, list[Plain]] = {}
    for line, label in zip(group.lines, labels, strict=True):
        for run in line.runs:
            for simple, values in run.numbers["baselines"].items():
                told = {name: values[name] for name in names if name in values}
                known = found.setdefault(simple, [])
                same = next((entry for entry in known if _same(told, entry["metrics"])), None)
                if same is not None:
                    same["metrics"] |= told
                elif told:
                    known.append({"label": simple, "answer": simple, "metrics": told, "by": label})
    return [
        entry | ({"label": f"{simple} (as {entry['by']} measured it)"} if len(entries) > 1 else {})
        for simple, entries in found.items()
        for entry in entries
    ]


def _same(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Return whether two measurements agree in what both have, but for the order in which examples were added."""
    both = a.keys() & b.keys()
    return bool(both) and all(abs(a[name] - b[name]) <= 1e-9 * max(1.0, abs(a[name])) for name in both)


def _best(name: str, higher: bool, lines: Sequence[Plain], baselines: Sequence[Plain]) -> list[str]:
    """Return the labels that reach the best value of a metric, simple answers included; none where only one has it."""
    values = {line["label"]: line["metrics"][name]["mean"] for line in lines if name in line["metrics"]}
    values |= {entry["label"]: entry["metrics"][name] for entry in baselines if name in entry["metrics"]}
    if len(values) < 2:
        return []
    best = (max if higher else min)(values.values())
    return [label for label, value in values.items() if value == best]


def _first_best(names: Sequence[str], lines: Sequence[Plain], directions: Mapping[str, bool]) -> str:
    order = _order(names, lines, directions)
    return str(lines[order[0]]["label"]) if len(lines) > 1 else ""


def _order(names: Sequence[str], lines: Sequence[Plain], directions: Mapping[str, bool]) -> list[int]:
    """Return the lines' places from the best to the worst by the first metric; those without it are last."""
    name = names[0] if names else ""
    sign = -1 if directions.get(name, True) else 1

    def key(place: int) -> tuple[bool, float]:
        found = lines[place]["metrics"].get(name)
        return found is None, 0.0 if found is None else sign * found["mean"]

    return sorted(range(len(lines)), key=key)


def _named(group: Group, labels: Sequence[str], baseline: str) -> str:
    """Return the label of the line that is called so, empty where there is none.

    Raises:
        RequestError: several are.
    """
    wanted = baseline.rstrip("/")
    if not wanted:
        return ""
    if wanted in labels:
        return wanted
    found = [
        label
        for line, label in zip(group.lines, labels, strict=True)
        if any(f"/{wanted}/" in f"/{run.shown}/" or _lies_in(run.folder, wanted) for run in line.runs)
    ]
    if len(found) > 1:
        raise RequestError(f"--baseline: {baseline!r} means several lines: {'; '.join(found)}")
    return found[0] if found else ""


def _lies_in(folder: str, outer: str) -> bool:
    return f"{absolute(folder)}/".startswith(f"{absolute(outer)}/")


def _differences(
    group: Group, labels: Sequence[str], lines: Sequence[Plain], reference: str, resamples: int
) -> list[str]:
    """Add to each line what it gains over the reference, by a paired bootstrap; return why it could not be made."""
    if not reference:
        return []
    other, notes = group.lines[labels.index(reference)], []
    for line, plain in zip(group.lines, lines, strict=True):
        if line is other:
            continue
        try:
            plain["difference"] = _difference(line, other, (plain["label"], reference), resamples)
        except EvaluationError as error:
            notes.append(f"no difference: {error}")
    return notes


def _difference(line: Line, other: Line, names: tuple[str, str], resamples: int) -> dict[str, Plain]:
    for run in (*line.runs, *other.runs):
        if not any(name.endswith(".parquet") for name in Storage(run.folder).list(f"evaluation/{SPLIT}")):
            raise EvaluationError(f"{names[0]} less {names[1]}: records of examples are missing in {run.shown}")
    ours, theirs = ([run.folder for run in one.runs] for one in (line, other))
    found = compare_seeds(ours, theirs, resamples, SPLIT, names=names)
    return {
        entry["metric"]: {**entry["difference"], "not_better": entry["not_better"]}
        for entry in found
        if entry["difference"]
    }
