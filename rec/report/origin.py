"""Where a report's run comes from: its data, what it cost, its config, and the commands that repeat it."""

from __future__ import annotations

import json
import os
import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomli_w

from rec.config import RunConfig, load, to_toml
from rec.errors import ConfigError
from rec.evaluation.measurement import read_measurement
from rec.progress import duration
from rec.report.text import bytes_text
from rec.sections import Code, Section, Text, counted
from rec.storage import Storage, absolute
from rec.train.training_record import cost_of, read_training, without_folders

NO_FILE = "run.toml"
"""What the file of a run is called that has none."""
SHOWN_COUNTS = ("users", "items", "interactions")
"""Of a data set's counts, those that tell its size at a glance."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is on file of how a run was made."""

    config: RunConfig
    """Of the first seed."""
    folder: str
    """Of the run, or of its seeds."""
    seeds: Sequence[int]
    split: str
    training: Mapping[str, Any] | None
    costs: Sequence[Mapping[str, Any]]
    """Of each seed's training, as `cost_of` tells them; empty where one has recorded nothing."""
    measurements: Sequence[Mapping[str, Any]]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many users, items, interactions and others the data set has; empty where that was not recorded."""
        told = self.training or (self.measurements[0] if self.measurements else None)
        found: Mapping[str, int] = told["data"].get("counts", {}) if told else {}
        return found

    def sizes(self) -> str:
        """Return the data set's size in words, empty where it was not recorded."""
        counts = self.counts
        # Records of other shapes than users who meet items, such as visits, would be misnamed as interactions.
        names = {"interactions": "record"} if "users" not in counts else {}
        each = shown_counts(counts).items()
        return ", ".join(counted(count, names.get(name, name.removesuffix("s"))) for name, count in each)

    def data(self) -> str:
        """Return the data set's name and size."""
        return ": ".join(part for part in (data_name(self.config), self.sizes()) if part)

    def cost(self) -> list[str]:
        """Return in a sentence what training and measuring took; nothing where it was not recorded."""
        found = []
        if self.costs:
            whole = all(cost["whole"] for cost in self.costs)
            told = ("" if whole else "at least ") + _time(cost["seconds"] for cost in self.costs)
            known = [cost["peak_memory_bytes"] for cost in self.costs if "peak_memory_bytes" in cost]
            memory = f" and {bytes_text(max(known))} of memory" if known else ""
            found.append(f"Training took {told}{memory}{' per seed' if len(self.costs) > 1 else ''}")
        if self.measurements:
            told = _time(one["seconds"] for one in self.measurements)
            found.append(f"measuring {told}" if found else f"Measuring took {told}")
        return [f"{', '.join(found)}."] if found else []

    def facts(self) -> list[tuple[str, str]]:
        """Return the model's size, and what it was trained on."""
        found = []
        sizes = sorted({one["parameters"] for one in self.measurements if one.get("parameters") is not None})
        if sizes:
            found.append(("model", f"{', '.join(f'{size:,}' for size in sizes)} parameters"))
        commands = [command for cost in self.costs for command in cost["commands"]]
        machines = [machine for command in commands for machine in command["machines"]]
        told = list(dict.fromkeys(machine_in_words(machine) for machine in machines))
        workers = sorted({command["workers"] for command in commands if command["workers"]})
        where = f"{counted(workers[-1], 'worker')} on " if workers else ""
        return [*found, *([("trained on", where + "; ".join(told))] if told else [])]

    def config_section(self) -> Section:
        """Return the config as TOML, only what differs from the defaults."""
        note = Text(text="Only what differs from the defaults.", tone="note")
        here = {"out": near(self.folder), "data": self.config.data.model_copy(update={"root": near(self._root)})}
        code = Code(text=to_toml(self.config.model_copy(update=here)))
        return Section(title="Config", parts=[note, code], folded=True)

    @property
    def _root(self) -> str:
        return self.config.data.root

    @property
    def file(self) -> str:
        """The TOML file that the run was trained from, as people type it."""
        return str((self.training or {}).get("file") or NO_FILE)

    def command(self) -> str:
        """Return the commands that make this report again, from the data set on."""
        words = [self.file, *(_word(key, value) for key, value in self._changes().items())]
        seeds = ["--seeds", str(len(self.seeds))] if len(self.seeds) > 1 else []
        split = [] if self.split == "test" else ["--split", self.split]
        steps = [["prepare"], ["train", *seeds], ["evaluate", *seeds, *split], ["report", *seeds, *split]]
        lines = [shlex.join(["rec", *step[:1], *words, *step[1:]]) for step in steps]
        first = [f"# {NO_FILE} holds the config at the end of this page"] if self.file == NO_FILE else []
        return "\n".join([*first, *lines])

    def command_does(self) -> str:
        """Return what `command` does, and which of its words are to be replaced."""
        changes = self._changes()
        places = {"data.root": self._root, "out": self.folder}
        shortened = any(key in changes and not is_near(place) for key, place in places.items())
        told = "; folders are shortened to their last part and are to be replaced by whole ones" if shortened else ""
        return f"To repeat this{told}:"

    @property
    def changed(self) -> bool:
        """Whether the run differs from its file."""
        return bool(self._changes())

    def _changes(self) -> dict[str, Any]:
        """Return the keys in which the run differs from its file, places and the seed included."""
        if self.file == NO_FILE:
            return {}
        found = {key: value for key, value in (self.training or {}).get("changes", {}).items() if value is not None}
        places: dict[str, Any] = {"data.root": self._root, "out": self.folder}
        try:
            base = load(self.file)
        except ConfigError:  # it lies elsewhere, or needs keys of the command line to be whole
            base = None
        if base is not None:
            known = {"data.root": base.data.root, "out": base.out}
            differ = {key: near(place) for key, place in places.items() if absolute(place) != absolute(known[key])}
            found |= differ
        if len(self.seeds) == 1 and self.seeds[0] != (base.train.seed if base is not None else 0):
            found["train.seed"] = self.seeds[0]
        return found


def origin_of(folder: str, folders: Sequence[str], config: RunConfig, split: str) -> Origin:
    """Return what the folders of a run's seeds tell of how they were made."""
    training = [read_training(Storage(part)) for part in folders]
    measurements = [read_measurement(Storage(part), split) for part in folders]
    known = [one for one in training if one is not None]
    return Origin(
        config=config,
        folder=folder,
        seeds=[json.loads(Storage(part).read("config.json"))["train"]["seed"] for part in folders],
        split=split,
        training=training[0],
        costs=[cost_of(one["commands"]) for one in known] if len(known) == len(folders) else [],
        measurements=[one for one in measurements if one is not None],
    )


def system_name(config: RunConfig) -> str:
    """Return the name of a run's system."""
    return config.system.rsplit(":", 1)[-1]


def shown_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Return those of a data set's counts that tell its size at a glance."""
    return {name: counts[name] for name in SHOWN_COUNTS if name in counts}


def data_name(config: RunConfig) -> str:
    """Return what people call a run's data set: the last folder of its path that says something."""
    root = config.data.root.partition("?")[0] if "://" in config.data.root else config.data.root
    parts = [part for part in root.split("/") if part not in ("", "data", "out")]
    return parts[-1] if parts else config.data.root


def near(path: str) -> str:
    """Return a place as it is typed from here; one that lies elsewhere by its last part: a page has no whole paths."""
    whole = absolute(path)
    return os.path.relpath(whole, os.getcwd()) if is_near(path) else without_folders(whole)


def is_near(path: str) -> bool:
    """Return whether a place lies below the folder in which the command runs."""
    return f"{absolute(path)}/".startswith(f"{os.getcwd()}/")


def _word(key: str, value: Any) -> str:
    """Return an override as it is typed: a text in quotes only where it would be read as something else."""
    if isinstance(value, str):
        try:
            tomllib.loads(f"x = {value}")
        except tomllib.TOMLDecodeError:
            return f"{key}={value}"
    return f"{key}={tomli_w.dumps({'x': value}).removeprefix('x = ').strip().replace(chr(10), '')}"


def _time(seconds: Iterable[float]) -> str:
    """Return the mean of some times in words."""
    found = list(seconds)
    mean = sum(found) / len(found)
    return duration(mean) if mean >= 1 else "less than 1 s"


def machine_in_words(machine: Mapping[str, Any]) -> str:
    """Return what a process computed on, as `rec.provenance.machine` tells it."""
    memory = [bytes_text(machine["memory_bytes"])] if machine["memory_bytes"] else []
    gpu = [machine["gpu"]] if machine["gpu"] else []
    return ", ".join([machine["cpu"], counted(machine["cores"], "core"), *memory, *gpu])
