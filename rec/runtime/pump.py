"""What the driver hears of the workers of an attempt, and when it ends them."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray import cloudpickle

from rec import errors
from rec.errors import RecError, TrainingError
from rec.progress import Progress as Waiting
from rec.runtime.cluster import leaving_nodes
from rec.runtime.elastic import WorkerChoice
from rec.runtime.monitor import least_done
from rec.runtime.straggler import Stragglers
from rec.train.loop import Report

POLL_S, START_POLL_S = 0.5, 0.1
NOTICE_S = 1.0
"""Seconds between looks for nodes that will be taken away."""
DRIVER = -1
"""Stands for a rank in events of the driver itself."""


class Pump(threading.Thread):
    """Carries workers' events to `report`, and ends the workers when all fall silent."""

    def __init__(
        self,
        monitor: Any,
        report: Report,
        stall_timeout_s: float,
        stop: threading.Event,
        sizes: WorkerChoice,
        abandon: Callable[[], None],
        say: Callable[[str], None],
        look: Callable[[], None],
    ) -> None:
        """Follow the workers that `monitor` hears.

        `abandon` ends an attempt that has none yet; `look` is called now and then, and may raise why to end it.
        """
        self.look = look
        self.say, self.looked_s = say, 0.0
        super().__init__(daemon=True, name="pump")
        self.sizes, self.abandon, self.saved = sizes, abandon, False
        self.stragglers, self.leaving = Stragglers(), ""
        self.nodes: dict[str, str] = {}
        """Addresses of the nodes that workers are on, by id."""
        self.resized = ""
        """Why the workers were ended to start with another number of them."""
        self.asked_to_stop = stop
        self.monitor, self.report, self.stall_timeout_s = monitor, report, stall_timeout_s
        self.waiting = Waiting("waiting for workers to start, load the model and make a first step")
        self.ended = threading.Event()
        self.error: RecError | None = None
        self.stalled: str | None = None
        self.last: dict[int, dict[str, Any]] = {}
        self.raised: dict[int, tuple[str, str, int]] = {}

    def run(self) -> None:
        """Follow the workers until stopped."""
        while not self.ended.wait(POLL_S if 0 in self.last else START_POLL_S):
            try:
                self.look()
                self._check(self._drain())
            except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnavailableError):
                continue
            except ray.exceptions.RayError:
                return
            except RecError as error:  # of what takes the events
                self.error = self.error or error
                self._end_workers()
                return

    def stop(self) -> None:
        """Take what is left and end."""
        self.ended.set()
        self.join()
        with contextlib.suppress(ray.exceptions.RayError):
            self._drain()

    def _drain(self) -> dict[int, tuple[float, dict[str, Any]]]:
        """Report what is new; return how long each worker has been silent, with its last event."""
        events, silent = ray.get(self.monitor.poll.remote(), timeout=30)
        for event in events:
            self.last[event["rank"]] = event
            if event["kind"] == "error" and self.error is None:
                kind = getattr(errors, event["type"], TrainingError)
                self.error = kind(event["message"])
            if event["kind"] == "raised":
                words = re.sub(r"\d+", "#", event["message"])
                self.raised[event["rank"]] = event["type"], words, event["total_step"]
            if event["kind"] == "step":
                self.waiting.end()
            self.saved |= event["kind"] == "saved"
            if event["kind"] == "placed":
                self.nodes[event["node_id"]] = event["node"]
            if event["kind"] == "left":
                self.resized = self.leaving
            self.report(event)
            if slow := self.stragglers.take(event):
                self.say(slow)
        return silent

    def _check(self, silent: dict[int, tuple[float, dict[str, Any]]]) -> None:
        """End the workers when none has said anything for too long; the one that did least is named."""
        if self.asked_to_stop.is_set() or (self.error is not None and DRIVER in self.last):
            self._end_workers()
            return
        self._look_for_notice()
        saved, self.saved = self.saved, False
        if not self.resized and not self.leaving:
            if saved and self.sizes.may_grow():
                self.resized = "there is room for more workers"
            elif not silent and self.sizes.must_shrink():
                self.resized = "a node was lost before its workers were placed"
            if self.resized:
                self._end_workers()
                return
        if self.stalled or not silent or min(s for s, _ in silent.values()) < self.stall_timeout_s:
            return
        rank = least_done(silent)
        seconds, last = silent[rank]
        self.stalled = f"rank {rank} made no progress for {seconds:.0f} s after {describe(last)}"
        self._end_workers()

    def _look_for_notice(self) -> None:
        """Have workers save and end when a node of theirs is about to be taken away; others are chosen then."""
        if self.leaving or not self.nodes or time.monotonic() - self.looked_s < NOTICE_S:
            return
        self.looked_s = time.monotonic()
        taken = [address for node, address in self.nodes.items() if node in leaving_nodes()]
        if taken:
            self.leaving = f"{' and '.join(sorted(taken))} will be taken away, and all that was done is saved"
            self.say(f"{' and '.join(sorted(taken))} will be taken away: saving a checkpoint now")
            ray.get(self.monitor.leave.remote(), timeout=30)

    def _end_workers(self) -> None:
        handles = ray.get(self.monitor.handles.remote(), timeout=30)
        for handle in handles:
            ray.kill(cloudpickle.loads(handle))
        if not handles:
            self.abandon()


def describe(event: dict[str, Any]) -> str:
    """Return in words how far a worker had come."""
    if not event:
        return "its start"
    step = f" at step {event['total_step']}" if "total_step" in event else ""
    return f"{event['kind']!r}{step}"
