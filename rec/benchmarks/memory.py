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
    """Watches the highest resident memory while inside, as often as it is told to: what is short is missed."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self.peak_bytes, self.interval_s = 0, interval_s
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
        while not self.ended.wait(self.interval_s):
            self.peak_bytes = max(self.peak_bytes, resident_bytes())


class Largest(TorchDispatchMode):
    """Watches the largest memory of one tensor that is made while it is entered; views of others are none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Make the call and look at what it returns."""
        given = {value.untyped_storage().data_ptr() for value in tensors((args, kwargs or {}))}
        found = func(*args, **(kwargs or {}))
        made = [value.untyped_storage() for value in tensors(found)]
        self.bytes = max(self.bytes, *(part.nbytes() for part in made if part.data_ptr() not in given), 0)
        return found


def tensors(tree: Any) -> list[torch.Tensor]:
    """Return the tensors in arguments or results."""
    return [value for value in tree_leaves(tree) if isinstance(value, torch.Tensor)]


def largest_bytes(action: Callable[[], Any]) -> int:
    """Return the bytes of the largest tensor that one call of `action` makes."""
    with Largest() as watched:
        action()
    return watched.bytes
