"""Runs as lines of tables: one table per split and protocol, one line per config, the seeds of a config together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rec.config import differing
from rec.evaluation.tasks.config import EvaluateConfig
from rec.json_text import json_text
from rec.report.origin import data_name, system_name
from rec.report.results.find import PassedOver, Run
from rec.sections import counted
from rec.strict import flat, is_among
from rec.train.training_record import APART, without_folders

NO_MATTER = (
    *APART,
    "evaluate",
    "train.checkpoint_steps",
    "train.checkpoint_minutes",
    "train.evaluate_batch_size",
    "parallel.max_failures",
    "parallel.stall_timeout_s",
)
"""Keys in which the seeds of one line may differ; those of `evaluate` tell tables apart."""
KEYS_IN_LABEL = 3


@dataclass(frozen=True, kw_only=True)
class Line:
    """One config with its runs, in the order of seeds."""

    runs: tuple[Run, ...]
    keys: Mapping[str, Any]
    """What differs from the defaults, by dotted key, as a page may show it."""

    @property
    def first(self) -> Run:
        """The run of the lowest seed."""
        return self.runs[0]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Lines that answered the same questions under one protocol."""

    split: Mapping[str, str]
    examples: int
    evaluate: Mapping[str, Any]
    """Dotted keys of `evaluate` that the runs were measured with ..."""
    apart: Mapping[str, Mapping[str, str]]
    """... and by task the settings that they share, as others may not stand beside them."""
    lines: tuple[Line, ...]

    @property
    def labels(self) -> list[str]:
        """A name for each line: its system, and the keys in which it differs from other lines of that system."""
        return labels(self.lines)

    @property
    def names(self) -> list[str]:
        """What people call the data."""
        return sorted({without_folders(data_name(line.first.config)) for line in self.lines})


def groups(runs: Iterable[Run]) -> tuple[list[Group], list[PassedOver]]:
    """Return the tables' lines, in the order of what the data are called, and repetitions, which stand in none."""
    tables: dict[str, dict[str, dict[int, list[Run]]]] = {}
    for run in runs:
        lines = tables.setdefault(json_text(_protocol(run), sort_keys=True), {})
        seeds = lines.setdefault(json_text(_config(run), sort_keys=True), {})
        seeds.setdefault(run.seed, []).append(run)
    found, repeated = [], []
    for lines in tables.values():
        kept = []
        for seeds in lines.values():
            chosen = {seed: max(same, key=_recorded) for seed, same in sorted(seeds.items())}
            repeated += [_repeated(run, chosen[seed]) for seed, same in seeds.items() for run in same]
            kept.append(Line(runs=tuple(chosen.values()), keys=_set(next(iter(chosen.values())))))
        run = kept[0].first
        told = _protocol(run)
        found.append(Group(**told, lines=tuple(kept)))
    return sorted(found, key=lambda group: group.names), [one for one in repeated if one is not None]


def labels(lines: Sequence[Line]) -> list[str]:
    """Return a name for each line that no other has."""
    systems = [line.first.config.system for line in lines]
    short = [system_name(line.first.config) for line in lines]
    telling = {
        system: _telling([line.keys for line, its in zip(lines, systems, strict=True) if its == system])
        for system in set(systems)
    }
    names = []
    for line, system, name in zip(lines, systems, short, strict=True):
        others = [other for other, its in zip(lines, systems, strict=True) if its == system]
        twice = len({s for s, n in zip(systems, short, strict=True) if n == name}) > 1
        own = {
            key: value
            for key, value in line.keys.items()
            if any(key not in o.keys or o.keys[key] != value for o in others)
        }
        first = telling[system]
        own |= {key: value for key, value in _curves(first, others, line).items() if key not in own}
        order = [key for key in first if key in own] + [key for key in sorted(own) if key not in first]
        shown = order[: max(KEYS_IN_LABEL, sum(key in own for key in first))]
        told = [f"{key.removeprefix('model.')}={_word(own[key])}" for key in shown]
        more = [counted(len(order) - len(shown), "key") + " more"] if len(order) > len(shown) else []
        names.append(", ".join([system if twice else name, *told, *more]))
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def _telling(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return few keys that tell lines apart, each the one that does so best beside those before it."""
    found: list[str] = []
    unset = object()

    def kinds(keys: Sequence[str]) -> int:
        return len({tuple(_word(line[key]) if key in line else unset for key in keys) for line in lines})

    rest = sorted({key for line in lines for key in line})
    while rest and kinds(found) < len(lines):
        # Of two that tell as much, the one that fewer lines set.
        best = max(rest, key=lambda key: (kinds([*found, key]), -sum(key in line for line in lines)))
        if kinds([*found, best]) == kinds(found):
            break
        found.append(best)
        rest.remove(best)
    return found


def _curves(keys: Sequence[str], lines: Sequence[Line], line: Line) -> dict[str, Any]:
    """Return a line's values of keys that have several values in others, where its own is the default."""
    config = _values(line.first)
    values = {key: {_word(other.keys[key]) for other in lines if key in other.keys} for key in keys}
    return {key: config[key] for key in keys if len(values[key]) > 1 and key in config}


def _protocol(run: Run) -> dict[str, Any]:
    """Return what two runs must share to stand in one table."""
    # Keys that are newer than a measurement had their defaults in it.
    measured = flat(EvaluateConfig().model_dump(mode="json")) | flat(
        run.measurement["keys"] if run.measurement else run.config.evaluate.model_dump(mode="json")
    )
    # Resamples decide how exact an interval is, not what it is of.
    evaluate = {key: value for key, value in measured.items() if key != "bootstrap"}
    apart = run.numbers.get("apart", {})
    return {"split": run.data["split"], "examples": run.numbers["examples"], "evaluate": evaluate, "apart": apart}


def _config(run: Run) -> dict[str, Any]:
    """Return what the seeds of a line share; a hash tells apart data sets that share a split, not their content."""
    return {key: value for key, value in _values(run).items() if not is_among(key, NO_MATTER)} | {
        "data": run.data["sha256"]
    }


def _values(run: Run) -> dict[str, Any]:
    """Return every key of a run's config with its value, the defaults too."""
    return flat(json.loads(run.config.model_dump_json()))


def _set(run: Run) -> dict[str, Any]:
    found = flat(differing(run.config))
    kept = {key: value for key, value in found.items() if not is_among(key, (*NO_MATTER, "system"))}
    return {key: without_folders(value) for key, value in kept.items()}


def _recorded(run: Run) -> tuple[bool, str, str]:
    """Return an order in which the run of which most is known, and then the newest, is last."""
    return run.measurement is not None, (run.measurement or {}).get("date", ""), run.shown


def _repeated(run: Run, chosen: Run) -> PassedOver | None:
    if run is chosen:
        return None
    same = run.numbers["metrics"] == chosen.numbers["metrics"]
    text = f"the same config and seed as {chosen.shown}, measured later, with {'the same' if same else 'other'} numbers"
    return PassedOver(run.shown, text)


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(_word(one) for one in value)
    return value if isinstance(value, str) else json_text(value)
