"""One trial: a run at one point of the space, followed by its events, and what is known of it on file.

trials/{id}/trial.json   what the search knows of a trial; rewritten at every evaluation
trials/{id}/...          the run itself, see rec.train.job
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rec.storage import Storage
from rec.train.phases import better
from rec.tuning.search import EVALUATE_S, LOAD_BALANCE, MAXIMUM

FILE = "trial.json"
FINISHED, RUNNING, STOPPED, FAILED = "finished", "running", "stopped", "failed"
Result = dict[str, Any]


@dataclass
class Trial:
    """What is known of a trial."""

    id: str
    point: dict[str, Any]
    status: str = RUNNING
    error: str = ""
    evaluations: int = 0
    """Evaluations on validation so far, in all phases."""
    steps: int = 0
    """Optimiser steps so far."""
    best: dict[str, float] = field(default_factory=dict)
    """Every metric of validation at the evaluation that was best."""
    curve: list[float] = field(default_factory=list)
    """The first objective at every evaluation of the last phase."""
    evaluate_s: list[float] = field(default_factory=list)
    """How long each of those took."""
    train_s: float = 0.0
    """Seconds between the first step being ready and the last evaluation, over all attempts."""
    total_s: float = 0.0
    """Seconds the trial held its workers, over all attempts."""
    workers: int = 1
    drawn_s: float = 0.0
    """When the trial was first started, in seconds since 1970."""

    def write(self, folder: Storage) -> None:
        """Write what is known into the trial's folder."""
        folder.write_json(FILE, asdict(self))

    def show(self, key: str) -> str:
        """Return the value of a key of the point in few characters, empty where it did not count."""
        value = self.point.get(key)
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def read_trial(folder: Storage) -> Trial | None:
    """Return what is known of the trial in a folder, None where nothing was written."""
    return Trial(**folder.read_json(FILE)) if folder.exists(FILE) else None


class Follower:
    """Turns a run's events into results of a trial and keeps `trial.json`.

    A result holds `value/NAME` for each objective, taken at the evaluation that was best so far by the first of them:
    a run keeps that checkpoint, so that is what the trial is worth. With one objective it never gets worse. Only the
    last phase gives results: what an earlier one measures is no value of the trial.
    """

    def __init__(
        self,
        trial: Trial,
        folder: Storage,
        objectives: Mapping[str, str],
        send: Callable[[Result], None],
        clock: Callable[[], float] = time.monotonic,
        phases: int = 1,
    ) -> None:
        self.trial, self.folder, self.objectives, self.send, self.clock = trial, folder, objectives, send, clock
        self.phases = phases
        """Phases of a run."""
        self.started_s = self.ready_s = self.clock()
        self.waiting = False
        self.missing = ""
        """Objectives that the run does not measure, and what it does."""
        self.before_train_s, self.before_total_s = trial.train_s, trial.total_s
        self.counted: list[tuple[tuple[int, int], dict[str, float]]] = []
        """The phase and step of each evaluation, and what it found where that counts."""

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event of a run; a result is sent once the checkpoint that belongs to it is there."""
        if event.get("rank", 0) != 0:
            return
        if event["kind"] == "ready":
            self.ready_s = self.clock()
        elif event["kind"] == "evaluated":
            self._evaluated(event)
            self.waiting = self._counts(event)
        elif event["kind"] == "saved" and self.waiting:
            self.waiting = False
            self.trial.write(self.folder)
            if not self.missing:
                self.send(self.result())

    def replay(self, history: Sequence[Mapping[str, Any]], before: Trial | None, tell: bool) -> None:
        """Take again what a run had told up to the checkpoint from which it goes on, and tell it again."""
        times = before.evaluate_s if before is not None else []
        for record in history:
            index = len(self.trial.curve)
            self._evaluated({**record, EVALUATE_S: times[index] if index < len(times) else 0.0})
            if tell and self._counts(record) and not self.missing:
                self.send(self.result())

    def _counts(self, record: Mapping[str, Any]) -> bool:
        """Return whether an evaluation is of the last phase."""
        return bool(record["phase"] + 1 == self.phases)

    def _evaluated(self, record: Mapping[str, Any]) -> None:
        """Count an evaluation."""
        trial, found = self.trial, metrics(record)
        at = int(record["phase"]), int(record["total_step"])
        self._forget(at)
        trial.evaluations += 1
        trial.steps = at[1]
        self._time()
        self.counted.append((at, {}))
        if not self._counts(record):
            self.trial.write(self.folder)
            return
        if absent := [name for name in self.objectives if name not in found]:
            self.missing = f"{', '.join(absent)}; there are {', '.join(sorted(found))}"
            return
        first, goal = next(iter(self.objectives.items()))
        if better(found[first], trial.best.get(first), goal == MAXIMUM):
            trial.best = found
        trial.curve.append(found[first])
        trial.evaluate_s.append(found.get(EVALUATE_S, math.nan))
        self.counted[-1] = at, found

    def _forget(self, since: tuple[int, int]) -> None:
        """Drop evaluations from a phase and step on: the run went back to a checkpoint and makes them again."""
        if not self.counted or self.counted[-1][0] < since:
            return
        while self.counted and self.counted[-1][0] >= since:
            self.trial.evaluations -= 1
            if self.counted.pop()[1]:
                self.trial.curve.pop()
                self.trial.evaluate_s.pop()
        first, goal = next(iter(self.objectives.items()))
        self.trial.best = {}
        for _, found in self.counted:
            if found and better(found[first], self.trial.best.get(first), goal == MAXIMUM):
                self.trial.best = found

    def result(self) -> Result:
        """Return what the search is told."""
        values = {f"value/{name}": self.trial.best[name] for name in self.objectives}
        # Schedulers compare trials after as many evaluations of the phase that counts.
        counts = {"evaluations": len(self.trial.curve), "steps": self.trial.steps, "total_s": self.trial.total_s}
        return values | counts | {f"val/{name}": value for name, value in self.trial.best.items()}

    def end(self, status: str, error: str = "") -> None:
        """Write how the trial ended."""
        self.trial.status, self.trial.error = status, error
        self._time()
        self.trial.write(self.folder)

    def _time(self) -> None:
        now = self.clock()
        self.trial.train_s = self.before_train_s + now - self.ready_s
        self.trial.total_s = self.before_total_s + now - self.started_s


def metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of an evaluation, and the load balance: the least even use of experts of any layer."""
    found = {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    use = [value for name, value in found.items() if name.startswith("moe/") and name.endswith("/use_entropy")]
    return found | ({LOAD_BALANCE: min(use)} if use else {})
