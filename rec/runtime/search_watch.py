"""What watches a search: its budget, how far it is, and whether the cluster has room for its trials."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray import tune

from rec.config import RunConfig
from rec.errors import TrainingError
from rec.levels import say
from rec.progress import PLAIN_INTERVAL_S, Progress, tell
from rec.runtime.cluster import Demand, fitting, living_nodes, together
from rec.runtime.elastic import POLL_S, WAIT_S
from rec.sections import counted
from rec.storage import Storage
from rec.tuning.results import ranked
from rec.tuning.search import objectives
from rec.tuning.trial import FAILED, FINISHED, RUNNING, STOPPED, Trial, read_trial


@dataclass
class SearchBudget(tune.Stopper):  # type: ignore[misc]
    """Stops a search after hours of this command, or after worker hours over all commands."""

    max_hours: float
    max_worker_hours: float
    workers: int
    spent_s: dict[str, float] = field(default_factory=dict)
    """Seconds that each trial has held its workers."""
    started_s: float | None = None

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Count what a trial has cost; no trial is stopped alone."""
        self.spent_s[trial_id] = float(result.get("total_s", 0.0))
        return False

    def stop_all(self) -> bool:
        """Return whether a budget is used up."""
        self.started_s = time.time() if self.started_s is None else self.started_s
        if self.max_hours and time.time() - self.started_s > 3600 * self.max_hours:
            return True
        return bool(self.max_worker_hours) and self.worker_hours > self.max_worker_hours

    @property
    def worker_hours(self) -> float:
        """Hours of workers so far."""
        return self.workers * sum(self.spent_s.values()) / 3600

    def __getstate__(self) -> dict[str, Any]:
        # The next command has its own hours.
        return self.__dict__ | {"started_s": None}


class Watcher(tune.Callback):  # type: ignore[misc]
    """Shows how far the search is, and writes down how trials ended."""

    def __init__(self, config: RunConfig, evaluations: int) -> None:
        self.evaluations = evaluations
        self.config, self.storage = config, Storage(config.out)
        self.goals = objectives(config)
        self.trials: dict[str, Trial] = {}
        self.line: Progress | None = None

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Show now and then that the search goes on, also while trials start or take long."""
        if self.line is None or time.monotonic() - self.line.shown_s > PLAIN_INTERVAL_S:
            self._show(trials)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Show progress."""
        self._read(trial.trial_id)
        self._show(trials)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Mark a trial that did not end by itself as stopped."""
        self._end(trial.trial_id, STOPPED, "")
        self._show(trials, force=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Mark a trial whose process died, and say why."""
        self._end(trial.trial_id, FAILED, str(trial.get_error() or "its process died").strip().splitlines()[-1])
        say(f"trial {trial.trial_id} failed: {self.trials[trial.trial_id].error}")
        self._show(trials, force=True)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Delete trials that a command had drawn which was stopped before Ray knew of them: they were drawn again."""
        known = {trial.trial_id for trial in trials}
        for name in self.storage.list("trials"):
            if name not in known:
                self.storage.delete(f"trials/{name}")

    def _read(self, name: str) -> Trial:
        known = read_trial(self.storage.below(f"trials/{name}")) or Trial(name, {})
        self.trials[name] = known
        return known

    def _end(self, name: str, status: str, error: str) -> None:
        known = self._read(name)
        if known.status == RUNNING:
            whole = status == STOPPED and len(known.curve) >= self.evaluations
            known.status, known.error = FINISHED if whole else status, error
            known.write(self.storage.below(f"trials/{name}"))

    def _show(self, trials: list[Any], force: bool = False) -> None:
        if self.line is None:
            self.line = Progress("trial", self.config.tune.trials)
        ended = sum(trial.status in ("TERMINATED", "ERROR") for trial in trials)
        running = sum(trial.status == "RUNNING" for trial in trials)
        order = ranked(list(self.trials.values()), self.goals)
        best = "none"
        if order:
            best = ", ".join(f"{name} {order[0].best[name]:.4f}" for name in self.goals) + f" ({order[0].id})"
        self.line.show(ended, f"running {running}, best so far {best}", force=force)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"line": None}


class Room(tune.Callback):  # type: ignore[misc]
    """Tells when nodes are lost that trials need, and ends a search that none has room for: it can go on later."""

    def __init__(self, config: RunConfig, concurrent: int) -> None:
        """Watch a search of so many trials at the same time."""
        self.out, self.demand = config.out, Demand.by_workers(config.parallel)
        self.concurrent = self.room = concurrent
        self.asked_s, self.none_since_s = 0.0, 0.0

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look now and then how many trials the living nodes have room for.

        Raises:
            TrainingError: for long they had room for none.
        """
        now_s = time.monotonic()
        if now_s - self.asked_s < POLL_S:
            return
        self.asked_s, before = now_s, self.room
        self.room = min(self.concurrent, together(self.demand) or self._last())
        if self.room:
            self.none_since_s = 0.0
        elif not self.none_since_s:
            self.none_since_s = now_s
        elif now_s - self.none_since_s > WAIT_S:
            raise TrainingError(
                f"the nodes that are left have room for no trial, and no other came in {WAIT_S:.0f} s; the same "
                "command goes on with the search once there are more"
            )
        if self.room < before:
            there = f"room for {self.room} of {counted(self.concurrent, 'trial')} at the same time"
            tell(f"{self.out}: a node was lost; those that are left have {there}, the others wait")
        elif self.room > before:
            tell(f"{self.out}: there is room for {counted(self.room, 'trial')} at the same time again")

    def _last(self) -> int:
        """Return 1 where one trial fits that takes the CPU for data too, else 0."""
        return int(fitting(self.demand.each, living_nodes().values()) >= self.demand.count)

    def __getstate__(self) -> dict[str, Any]:
        # Clocks of another process mean nothing.
        return self.__dict__ | {"asked_s": 0.0, "none_since_s": 0.0}
