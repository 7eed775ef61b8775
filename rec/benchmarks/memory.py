"""Resident memory of this process and everything it started, and the tensors that an action makes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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


class Largest(TorchDispatchMode):
    """Watches the largest memory of one tensor that is made while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Make the call and look at what it returns."""
        found = func(*args, **(kwargs or {}))
        sizes = [value.untyped_storage().nbytes() for value in tree_leaves(found) if isinstance(value, torch.Tensor)]
        self.bytes = max(self.bytes, *sizes, 0)
        return found


def largest_bytes(action: Callable[[], Any]) -> int:
    """Return the bytes of the largest tensor that one call of `action` makes or writes to."""
    with Largest() as watched:
        action()
    return watched.bytes
