"""How long a rank works by itself in a step: until its first backward, without what it waits for other ranks.

All ranks of a step take as long as the slowest, so that the time of a step tells nobody which one that is. On a GPU it
is the host's share of the work, which does not wait for the device.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class OwnTime:
    """Seconds of own work, over the steps since they were last taken."""

    def __init__(self) -> None:
        self.seconds, self.steps, self.began_s = 0.0, 0, 0.0
        self.waits = False
        """Whether other ranks may be waited for now: inside `waiting`, or behind the own work of a step."""

    def start(self) -> None:
        """Begin a step: all ranks do at about the same time, after the update before."""
        self.began_s, self.waits = time.perf_counter(), False

    def skip(self, seconds: float) -> None:
        """Leave out a time in which others were waited for."""
        self.began_s += seconds if self.began_s else 0.0

    def stop(self) -> None:
        """End what counts of a step; told again, nothing."""
        if self.began_s:
            self.seconds += time.perf_counter() - self.began_s
            self.steps, self.began_s, self.waits = self.steps + 1, 0.0, True

    def leave(self) -> None:
        """Say that no step is under way."""
        self.began_s, self.waits = 0.0, False

    def take(self) -> tuple[float, int]:
        """Return the seconds and steps since the last call."""
        found = self.seconds, self.steps
        self.seconds, self.steps = 0.0, 0
        return found


WATCH: ContextVar[OwnTime | None] = ContextVar("watch of a rank's own work", default=None)


@contextmanager
def waiting() -> Iterator[None]:
    """Be inside while other ranks may be waited for."""
    watch = WATCH.get()
    if watch is None:
        yield
        return
    start_s, before, watch.waits = time.perf_counter(), watch.waits, True
    yield
    watch.waits = before
    watch.skip(time.perf_counter() - start_s)
