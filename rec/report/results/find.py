"""The runs below some folders: which can stand in a table, and why others cannot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pyarrow import fs

from rec.config import RunConfig
from rec.data.prepared import Prepared
from rec.errors import EvaluationError, RecError
from rec.evaluation.measurement import read_measurement
from rec.evaluation.protocol import data_of
from rec.evaluation.run import Numbers, read_numbers
from rec.filesystems import last_name
from rec.run_folder import recorded
from rec.storage import Storage, absolute
from rec.train.training_record import read_training

SPLIT = "test"
PARTS = ("checkpoints", "evaluation", "predictions", "export", "ray")
"""Folders of a run that hold no runs."""
TRIALS = "trials"
"""The folder of a search's trials, which are measured on validation alone."""
FROM_ROOT = re.compile(r"(?<![\w.:])/(?:[^\s/'\"]+/)+([^\s/'\"]*)")
"""A path from the root in a message, and its last part, which is all of it that a page names."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that was trained to its end and measured on test."""

    folder: str
    shown: str
    """The folder as pages name it: from the one that was asked for on."""
    config: RunConfig
    numbers: Numbers
    training: dict[str, Any] | None
    """See `rec.train.training_record`; None where nothing was recorded."""
    measurement: dict[str, Any] | None
    """See `rec.evaluation.measurement`; None where nothing was recorded."""
    data: dict[str, Any]
    """See `rec.evaluation.protocol.data_of`."""

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.train.seed

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record per evaluation on validation."""
        return history_of(Storage(self.folder))


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A run that stands in no table, and why."""

    shown: str
    reason: str


def find(folders: Sequence[str]) -> tuple[list[Run], list[PassedOver]]:
    """Return the runs below some folders, and those that can stand in no table.

    Raises:
        EvaluationError: a folder is not there, or holds no run that was measured on test.
    """
    runs: list[Run] = []
    passed_over: list[PassedOver] = []
    known: set[str] = set()
    for folder in folders:
        if not Storage(folder).exists(""):
            raise EvaluationError(f"{folder}: no such folder")
        for place, shown in _places(folder):
            if place.path("") in known:
                continue
            known.add(place.path(""))
            if shown.rpartition("/")[2] == TRIALS:
                passed_over.append(
                    PassedOver(shown, "trials of a search are not listed; train its `best.toml` for that")
                )
                continue
            found = _read(place, shown)
            (runs if isinstance(found, Run) else passed_over).append(found)  # type: ignore[arg-type]
    if not runs:
        told = "; ".join(f"{one.shown}: {one.reason}" for one in passed_over[:3])
        below = ", ".join(folders)
        raise EvaluationError(
            f"no run below {below} was trained to its end and measured on {SPLIT}: "
            + (told or "there is no folder with a run's config.json; expected one from `rec train`")
        )
    return runs, passed_over


def _places(folder: str) -> Iterator[tuple[Storage, str]]:
    """Yield every folder with a run, or with trials, in the order of names, and how it is shown."""
    name = last_name(absolute(folder))
    waiting = [(Storage(folder), name)]
    while waiting:
        place, shown = waiting.pop()
        infos = place.filesystem.get_file_info(fs.FileSelector(place.path("") or "/"))
        names = sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)
        is_run = _is_run(place)
        if is_run:
            yield place, shown
        if TRIALS in names and place.exists("trials.csv"):
            names.remove(TRIALS)
            yield place.below(TRIALS), f"{shown}/{TRIALS}"
        below = [name for name in names if not name.startswith(".") and not (is_run and name in PARTS)]
        waiting += [(place.below(name), f"{shown}/{name}") for name in reversed(below)]


def _is_run(place: Storage) -> bool:
    """Return whether a folder's config.json is that of a run: other tools write files of this name too."""
    if not place.exists("config.json"):
        return False
    try:
        found = json.loads(place.read("config.json"))
    except ValueError:
        return False
    return isinstance(found, dict) and {"system", "out", "train"} <= found.keys()


def _read(place: Storage, shown: str) -> Run | PassedOver:
    folder = place.uri
    try:
        config = recorded(place)
        training, history = read_training(place), history_of(place)
        stopped = stopped_in_words(config, training, history)
        measured = place.exists(f"evaluation/{SPLIT}/metrics.json")
        if stopped or not measured:
            reasons = [stopped, "" if measured else f"not evaluated on {SPLIT}; run `rec evaluate`"]
            return PassedOver(shown, "; ".join(reason for reason in reasons if reason))
        numbers = read_numbers(folder, SPLIT)
        measurement = read_measurement(place, SPLIT)
        data = measurement["data"] if measurement else _data_now(config)
    except RecError as error:
        text = str(error).replace(f"{folder}: ", "").replace(f"{folder}/", "")
        return PassedOver(shown, FROM_ROOT.sub(lambda path: path[1], " ".join(text.split())))
    if data is None:
        return PassedOver(shown, "which split it was measured on is not recorded, and its data set is gone")
    if training and training["data"]["split"] != data["split"]:
        return PassedOver(shown, "trained on another split than it was measured on")
    return Run(
        folder=folder,
        shown=shown,
        config=config,
        numbers=numbers,
        training=training,
        measurement=measurement,
        data=data,
    )


def stopped_in_words(config: RunConfig, training: dict[str, Any] | None, history: list[dict[str, Any]]) -> str:
    """Return how far a run came that was stopped before its end, empty where it was not, or where that is unknown."""
    if training is not None:
        end, keys = training["end"], training["keys"]
        phase, done = str(end.get("phase", "")), int(end.get("epoch", 0))
        before, wanted = _epochs(keys, phase), _epochs(config.train.model_dump(mode="json"), phase)
        longer = wanted > before and not end.get("stopped_early")
        if end["over"] and not longer:
            return ""
        epochs = wanted if longer else int(end.get("epochs", wanted))
        return f"stopped after {done} of {epochs} epochs" + (f" of phase {phase!r}" if end.get("phases", 1) > 1 else "")
    if not history:
        return "stopped before the first evaluation on validation"
    last = history[-1]
    told = config.train.phases.get(str(last.get("phase_name", "")))
    patience = any(
        getattr(config.train, name) if told is None or getattr(told, name) is None else getattr(told, name)
        for name in ("patience", "patience_examples")
    )
    epochs = _epochs(config.train.model_dump(mode="json"), str(last.get("phase_name", "")))
    # What the system itself sets for a phase, or whether patience was at its end, old files do not tell.
    unknown = patience or len({record.get("phase") for record in history}) > 1
    return "" if unknown or last["epoch"] >= epochs else f"stopped after {last['epoch']} of {epochs} epochs"


def history_of(place: Storage) -> list[dict[str, Any]]:
    """Return what a run has recorded of its evaluations on validation, empty where it has nothing."""
    found: list[dict[str, Any]] = place.read_json("history.json") if place.exists("history.json") else []
    return found


def _epochs(train: dict[str, Any], phase: str) -> int:
    own = train["phases"].get(phase, {}).get("epochs")
    return int(own or train["epochs"])


def _data_now(config: RunConfig) -> dict[str, Any] | None:
    """Return what tells the data set apart as it lies there now, None where there is none."""
    try:
        return data_of(Prepared.open(config.data.root).manifest)
    except RecError:
        return None
