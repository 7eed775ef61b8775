"""Resident memory of this process and everything it started."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

INTERVAL_S = 0.25


def resident_bytes() -> int:
    """Return the memory of this process and its descendants, shared pages counted once (PSS)."""
    me = psutil.Process()
    total = 0
    for process in (me, *me.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


class PeakMemory:
    """Watches the highest resident memory while inside."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.ended = threading.Event()

    def __enter__(self) -> PeakMemory:
        self.thread = threading.Thread(target=self._watch, daemon=True, name="memory")
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.ended.wait(INTERVAL_S):
            self.peak_bytes = max(self.peak_bytes, resident_bytes())
