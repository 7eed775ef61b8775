"""What runs in the process of every trial: a run of its own, whose events become results of the trial."""

from __future__ import annotations

import os
import queue
import shutil
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

from ray import tune

from rec.config import RunConfig, from_json
from rec.errors import ConfigError, RecError, TrainingError, one_line
from rec.runtime import training
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from rec.train.job import train_here
from rec.tuning.search import apply, objectives
from rec.tuning.trial import FAILED, FINISHED, Follower, Result, Trial, read_trial

LOG = "log.txt"
JOIN_S = 60.0
"""Longest wait for the workers of a stopped trial to end."""
PLACED_S = 30 * 86400.0
"""Longest wait of a trial for room: where a node was lost it has to wait until others end."""


class TrialRun(tune.Trainable):  # type: ignore[misc]
    """A process of the search: trains one trial after another, each by workers of its own.

    Training happens in a thread. Each `step` of Ray Tune waits for one result; a trial that is stopped ends its workers
    and is waited for, so that nothing it reserved outlives it. With population-based training a trial is a chain of
    runs, each with values of its own from the checkpoint of a better trial; otherwise it is one run.
    """

    base: ClassVar[str]
    """The search's config as JSON."""
    phases: ClassVar[int]
    """Phases of a run."""

    def setup(self, config: dict[str, Any]) -> None:
        """Be ready for a trial at a point of the space."""
        self.point = dict(config)
        self.results: queue.Queue[Result | Exception | None] = queue.Queue()
        self.stopped = threading.Event()
        self.last: Result = {}
        self.given: Storage | None = None
        self.thread: threading.Thread | None = None
        self.checkpoints: CheckpointStore | None = None

    def step(self) -> Result:
        """Return the next result; the last one is marked as done."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, daemon=True, name="trial")
            self.thread.start()
        found = self.results.get()
        if isinstance(found, Exception):
            raise found
        if found is None:
            return {**self.last, "done": True}
        self.last = found
        return found

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """End the trial before, and be ready for another one."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """End the workers of this trial and wait until they are gone."""
        self.stopped.set()
        if self.thread is not None:
            self.thread.join(JOIN_S)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Copy the run's newest checkpoint, for another trial to go on from."""
        step, _ = self.checkpoints.newest_valid() if self.checkpoints else (None, [])
        if step is not None and self.checkpoints is not None:
            self.checkpoints.copy(step, CheckpointStore(Storage(checkpoint_dir)))

    def load_checkpoint(self, checkpoint: str) -> None:
        """Keep a copy of a checkpoint that the next run is to go on from."""
        copy = Path(self.logdir) / "given"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(checkpoint, copy)
        self.given = Storage(str(copy))

    def _run(self) -> None:
        try:
            self._train(from_json(self.base))
        except RecError as error:
            self.results.put(error)
        except Exception as error:
            self.results.put(error)
            raise
        else:
            self.results.put(None)

    def _train(self, config: RunConfig) -> None:
        folder = Storage(config.out).below(f"trials/{self.trial_id}")
        known = read_trial(folder)
        if known is not None and known.status == FAILED:
            raise TrainingError(known.error)
        trial = Trial(self.trial_id, self.point, workers=max(1, config.parallel.workers), drawn_s=time.time())
        if known is not None:
            trial.train_s, trial.total_s, trial.drawn_s = known.train_s, known.total_s, known.drawn_s
        follower = Follower(trial, folder, objectives(config), self.results.put, phases=self.phases)
        trial.write(folder)
        try:
            run = self._place(config, folder)
            follower.replay(self._history(), known, tell=config.tune.scheduler != "pbt")
            if trial.best:
                self.last = follower.result()
            if config.parallel.workers:
                os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", f"{PLACED_S:.0f}")
                training.train(run, follower, Log(folder), self.stopped, wait_s=PLACED_S)
            else:
                train_here(run, Stopping(follower, self.stopped), Log(folder))
            if follower.missing:
                raise ConfigError(f"tune.metric, tune.objectives: not measured: {follower.missing}")
        except RecError as error:
            follower.end(FAILED, str(error).splitlines()[-1])
            raise
        except StopTrial:
            pass
        except (OSError, MemoryError):  # can go away by themselves: Ray Tune tries once more
            raise
        except Exception as error:
            follower.end(FAILED, f"{type(error).__name__}: {one_line(str(error))}")
            raise
        if not self.stopped.is_set():
            follower.end(FINISHED)

    def _place(self, config: RunConfig, folder: Storage) -> RunConfig:
        """Return the trial's run, in a folder from which it goes on."""
        name = "run"
        if config.tune.scheduler == "pbt":
            name = f"part-{sum(part.startswith('part-') for part in folder.list()):03d}"
        self.checkpoints = CheckpointStore(folder.below(f"{name}/checkpoints"))
        if self.given is not None:
            given = CheckpointStore(self.given)
            step, faults = given.newest_valid()
            if step is None:
                raise TrainingError(f"the checkpoint of another trial is damaged: {'; '.join(faults)}")
            given.copy(step, self.checkpoints)
        return apply(config, self.point, folder.uri_of(name))

    def _history(self) -> list[dict[str, Any]]:
        """Return the evaluations up to the checkpoint from which the run goes on."""
        assert self.checkpoints is not None
        step, _ = self.checkpoints.newest_valid()
        return [] if step is None else list(self.checkpoints.state(step)["history"])


class StopTrial(Exception):
    """Ends a run in this process at its next event."""


class Stopping:
    """Passes events on until the trial is to stop."""

    def __init__(self, follower: Follower, stopped: threading.Event) -> None:
        self.follower, self.stopped = follower, stopped

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event."""
        if self.stopped.is_set():
            raise StopTrial
        self.follower(event)


class Log:
    """Appends what a run says to its trial's log."""

    def __init__(self, folder: Storage) -> None:
        self.folder = folder
        self.lines: list[str] = folder.read(LOG).decode().splitlines() if folder.exists(LOG) else []

    def __call__(self, text: str) -> None:
        """Write one more line."""
        self.lines.append(text)
        self.folder.write(LOG, "\n".join([*self.lines, ""]).encode())
