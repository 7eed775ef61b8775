"""A training run on real nodes, from outside: its driver, what it says, and what it has on disk."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from rec.errors import TrainingError
from rec.runtime.local_cluster import LocalCluster
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore

Event = dict[str, Any]
WORKER = "ray::RayTrainWorker"
"""How titles of processes that train begin."""
POLL_S = 0.1
DRIVER = "rec.benchmarks.chaos.driver"
TOLD = 2000
"""Characters of what a driver said that are told with an error."""


class Training:
    """One run by `rec.benchmarks.chaos.driver` on the head of a cluster.

    Args:
        nodes: The cluster.
        folder: Where the run, its events and what its drivers say go.
        words: TOML file, then keys.
    """

    def __init__(self, nodes: LocalCluster, folder: Path, words: Sequence[str]) -> None:
        self.nodes, self.words, self.out = nodes, [*words, f"out={folder / 'run'}"], folder / "run"
        self.log, self.file = folder / "driver.log", folder / "events.jsonl"
        self.file.touch()
        self.heard: list[Event] = []
        self.read_bytes = 0
        self.store = CheckpointStore(Storage(str(self.out)).below("checkpoints"))
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start a driver, of the same command each time."""
        command = [sys.executable, "-m", DRIVER, str(self.file), *self.words]
        with self.log.open("ab") as log:
            self.process = self.nodes.popen(0, command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return self.process

    def events(self, kind: str = "") -> list[Event]:
        """Return what was heard so far, of all drivers."""
        with self.file.open("rb") as file:
            file.seek(self.read_bytes)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.read_bytes += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):  # of a driver that was killed while it wrote
                self.heard.append(json.loads(line))
        return [event for event in self.heard if kind in ("", event["kind"])]

    def said(self) -> str:
        """Return what drivers have said."""
        return "\n".join(event["text"] for event in self.events("said"))

    def step(self) -> int:
        """Return the last step that was heard of."""
        return max((event["total_step"] for event in self.events("step")), default=0)

    def wait(self, happened: Callable[[], bool], limit_s: float, ended: bool = False) -> None:
        """Wait until something is so; `ended` says that the driver may have ended.

        Raises:
            TrainingError: it does not become so, or the driver has ended.
        """
        deadline_s = time.monotonic() + limit_s
        while not happened():
            if not ended and (code := self.process.poll()) is not None and not happened():
                raise TrainingError(f"the driver ended with {code}: {self._told()}")
            if time.monotonic() > deadline_s:
                raise TrainingError(f"what was waited for is not so after {limit_s:g} s: {self._told()}")
            time.sleep(POLL_S)

    def next_step(self, since_s: float, limit_s: float, restarted: bool = False) -> float:
        """Return the seconds from a time to the next step, of another attempt where it is to be `restarted`."""

        def found() -> list[float]:
            events = [event for event in self.events() if event["at_s"] > since_s]
            first = next(
                (event["at_s"] for event in events if event["kind"] == "ready"), None if restarted else since_s
            )
            return [e["at_s"] for e in events if e["kind"] == "step" and first is not None and e["at_s"] >= first]

        self.wait(lambda: bool(found()), limit_s)
        return found()[0] - since_s

    def finish(self, limit_s: float) -> None:
        """Wait until the run is over.

        Raises:
            TrainingError: it failed, or is not over in time.
        """
        self.wait(lambda: self.process.poll() is not None, limit_s, ended=True)
        if self.process.returncode:
            raise TrainingError(f"the driver ended with {self.process.returncode}: {self._told()}")

    def is_training(self) -> bool:
        """Return whether the last that was heard is of steps."""
        events = self.events()
        return bool(events) and events[-1]["kind"] in ("step", "saving", "saved")

    def workers(self) -> list[tuple[int, psutil.Process]]:
        """Return the processes that train, or are about to, with their nodes."""
        nodes = range(self.nodes.shape.nodes)
        return [(node, process) for node in nodes for process in self.nodes.processes(node, WORKER)]

    def again(self) -> list[tuple[int, int]]:
        """Return what `done_again` does of all that was heard."""
        return done_again(self.events())

    def lost(self) -> list[str]:
        """Return what `gone_before` does of all that was heard."""
        return gone_before(self.events())

    def faults(self) -> list[str]:
        """Return what is wrong with checkpoints, every byte of which is read; a run deletes old ones meanwhile."""
        found = {step: self.store.faults(step) for step in self.store.steps()}
        there = self.store.steps()
        return [fault for step, faults in found.items() if step in there for fault in faults]

    def history(self) -> list[dict[str, Any]]:
        """Return what was measured after each epoch."""
        history: list[dict[str, Any]] = Storage(str(self.out)).read_json("history.json")
        return history

    def _told(self) -> str:
        return self.log.read_text(errors="replace")[-TOLD:]


def done_again(events: Sequence[Event]) -> list[tuple[int, int]]:
    """Return of each attempt but the first how many steps it has done again, as far as was heard.

    Then, of these, how many up to the checkpoint that was being written: steps made meanwhile are of the next one.
    """
    reached, writing, found = 0, None, []
    for event in events:
        kind = event["kind"]
        if kind == "step":
            reached = max(reached, event["total_step"])
        elif kind == "saving":
            writing = event["total_step"]
        elif kind == "saved" and event["total_step"] == writing:
            writing = None
        elif kind == "ready":
            last = reached if writing is None else writing
            found.append((max(0, reached - event["step"]), max(0, last - event["step"])))
            writing = None
    return found[1:]


def gone_before(events: Sequence[Event]) -> list[str]:
    """Return where an attempt went on before a checkpoint that was told to be whole."""
    saved, found = 0, []
    for event in events:
        if event["kind"] == "saved":
            saved = max(saved, event["total_step"])
        elif event["kind"] == "ready" and event["step"] < saved:
            found.append(f"went on from step {event['step']} though the checkpoint of step {saved} was there")
    return found
