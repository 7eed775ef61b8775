"""`training.json` of a run's folder: what its training cost, by which code, on which machines, with which keys, when.

One entry per `rec train` that has saved a checkpoint. What a command did after its last checkpoint is not part of the
run, and so of no entry. Where a command was stopped between a checkpoint and its entry, the next one tells of it, but
not what it has cost: its own `start_step` is above the `step` before.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from rec import provenance
from rec.config import RunConfig, differing, load
from rec.errors import ConfigError, StorageError
from rec.evaluation.protocol import data_of
from rec.filesystems import last_name
from rec.storage import Storage
from rec.strict import flat, is_among
from rec.train.checkpoint import CheckpointStore
from rec.train.loop import Report
from rec.train.phases import Stretch, is_over, stopped_early
from rec.train.progress import TrainingProgress

FILE, FORMAT = "training.json", 1
APART = ("out", "data.root", "train.seed", "tune", "serve", "expect")
"""Keys that are no part of what is compared: places, the seed, and what other commands use."""


class TrainingRecord:
    """Passes a run's events on, and renews the record at every checkpoint.

    Args:
        storage: The run's folder.
        config: The run.
        manifest: Of its data set.
        report: Receives every event.
        file: The TOML file that the config was read from, where it was.
        machine: What this process trains on; None where workers tell theirs.
    """

    def __init__(
        self,
        storage: Storage,
        config: RunConfig,
        manifest: Mapping[str, Any],
        report: Report,
        *,
        file: str | None = None,
        machine: dict[str, Any] | None = None,
    ) -> None:
        self.storage, self.report = storage, report
        self.started_s = time.monotonic()
        self.machines = {} if machine is None else {0: machine}
        self.peaks: dict[int, dict[str, int]] = {}
        steps = CheckpointStore(storage.below("checkpoints")).steps()
        start = steps[-1] if steps else 0
        known = read_training(storage) if start else None
        self.commands = known["commands"] if known else []
        self.command: dict[str, Any] = {
            "date": provenance.now(),
            "start_step": start,
            "workers": config.parallel.workers,
        }
        self.command |= {"code": provenance.code(), "versions": provenance.versions()}
        self.end: dict[str, Any] = known["end"] | {"over": False} if known else {"over": False}
        self.whole = {
            "format": FORMAT,
            "file": None if file is None else told_file(file),
            "changes": changes(config, file),
            "keys": config.train.model_dump(mode="json"),
            "data": data_of(manifest),
        }

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event of any rank."""
        rank = event.get("rank", 0)
        if "machine" in event:
            self.machines[rank] = event["machine"]
        if event["kind"] == "saving":
            sizes = {name: value for name, value in event.items() if name.startswith("peak_")}
            before = self.peaks.get(rank, {})
            self.peaks[rank] = {name: max(value, before.get(name, 0)) for name, value in sizes.items()}
        elif event["kind"] == "workers":
            self.command["workers"] = event["workers"]
            self.machines = {rank: machine for rank, machine in self.machines.items() if rank < event["workers"]}
        elif event["kind"] == "step":
            self.end["epochs"] = event["epochs"]
        elif event["kind"] == "evaluated":
            last = event["phase"] + 1 == event["phases"]
            over = last and (event["stopped"] or event["epoch"] >= self.end.get("epochs", 0))
            told = {"phase": event["phase_name"], "phases": event["phases"], "epoch": event["epoch"]}
            self.end |= told | {"stopped_early": event["stopped"], "over": over}
        elif event["kind"] == "saved":
            with contextlib.suppress(StorageError):  # what is missing comes with the next checkpoint, or at the end
                self._write(event["total_step"])
        self.report(event)

    def settle(self, progress: TrainingProgress, found: Sequence[Stretch]) -> None:
        """Tell how far the run is, where what made its last checkpoint was stopped before it could."""
        last = found[min(progress.phase, len(found) - 1)]
        self.end |= {
            "epochs": last.config.epochs,
            "phase": last.phase.name,
            "phases": last.count,
            "epoch": progress.epoch,
            "stopped_early": stopped_early(progress, last.config),
            "over": is_over(progress, found),
        }
        known = read_training(self.storage)
        if known is None or known["commands"][-1]["step"] != progress.total_step:
            self._write(progress.total_step)
        elif known["end"] != self.end:
            self.storage.write_json(FILE, known | {"end": self.end})

    def _write(self, step: int) -> None:
        self.command |= {"step": step, "seconds": time.monotonic() - self.started_s}
        self.command["machines"] = [self.machines[rank] for rank in sorted(self.machines)]
        for name in sorted({name for sizes in self.peaks.values() for name in sizes}):
            self.command[name] = sum(sizes.get(name, 0) for sizes in self.peaks.values())
        self.storage.write_json(FILE, self.whole | {"end": self.end, "commands": [*self.commands, self.command]})


def read_training(storage: Storage) -> dict[str, Any] | None:
    """Return the record of a run's training, None where it has none that can be read."""
    if not storage.exists(FILE):
        return None
    found: dict[str, Any] = storage.read_json(FILE)
    return found if found.get("format") == FORMAT else None


def cost_of(commands: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all commands that trained a run cost together, and by what they did it.

    `whole` is false where steps of the run are in no command: then it took longer than is known.
    """
    ends = [0, *(command["step"] for command in commands)]
    whole = all(command["start_step"] <= end for command, end in zip(commands, ends, strict=False))
    found: dict[str, Any] = {"seconds": sum(command["seconds"] for command in commands), "whole": whole}
    for name in ("peak_memory_bytes", "peak_gpu_bytes"):
        known = [command[name] for command in commands if name in command]
        found |= {name: max(known)} if known else {}
    return found | {"commands": list(commands)}


def changes(config: RunConfig, file: str | None = None) -> dict[str, Any]:
    """Return the dotted keys of a run that differ from its config file, or from the defaults where there is none.

    `None` stands for a key that the file has and the run has not; folders of files are left out of values.
    """
    base: dict[str, Any] = {}
    if file is not None:
        try:
            base = _compared(load(file))
        except ConfigError:  # a file may need keys of the command line to be whole
            file = None
    ours = _compared(config) if file is not None else _set(config)
    keys = sorted(ours.keys() | base.keys())
    return {key: without_folders(ours.get(key)) for key in keys if ours.get(key) != base.get(key)}


def told_file(file: str) -> str:
    """Return how a config file is named: from the package on, as it was given, or by its name alone."""
    path, package = Path(file).resolve(), Path(__file__).resolve().parents[1]
    if package in path.parents:
        return path.relative_to(package.parent).as_posix()
    given = PurePath(file)
    return path.name if given.is_absolute() or ".." in given.parts or "://" in file else given.as_posix()


def without_folders(value: Any) -> Any:
    """Return a value in which each text that is a path from the root, or a URL, is its last part."""
    if isinstance(value, list | tuple):
        return [without_folders(one) for one in value]
    if isinstance(value, dict):
        return {key: without_folders(one) for key, one in value.items()}
    if isinstance(value, str) and (value.startswith(("/", "~")) or "://" in value):
        return last_name(value)
    return value


def _compared(config: RunConfig) -> dict[str, Any]:
    found = flat(json.loads(config.model_dump_json()))
    return {key: value for key, value in found.items() if not is_among(key, APART)}


def _set(config: RunConfig) -> dict[str, Any]:
    found = flat(differing(config))
    return {key: value for key, value in found.items() if not is_among(key, (*APART, "system"))}
