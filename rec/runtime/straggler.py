"""Which rank all others wait for, by what each tells of its own work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

WINDOW_S = 15.0
"""Seconds over which own work is averaged."""
FACTOR, BACK = 3.0, 1.5
"""A rank is slow whose work takes so many times as long as the median of the others', and no more below the second."""
LEAST_S = 0.002
"""Own work of a step below which nothing is told: what interrupts it is as long."""


class Stragglers:
    """The own work of every rank over the last seconds."""

    def __init__(self) -> None:
        self.told: dict[int, deque[tuple[float, float, int]]] = {}
        self.node: dict[int, str] = {}
        self.named: set[int] = set()

    def take(self, event: Mapping[str, Any], now_s: float | None = None) -> str:
        """Take an event of a rank; return in words which rank is slow, or no longer is, empty where nothing changed."""
        now_s = time.monotonic() if now_s is None else now_s
        rank = event["rank"]
        if "node" in event:
            self.node[rank] = event["node"]
        if not event.get("own_steps"):
            return ""
        known = self.told.get(rank)
        if known is None:  # the first steps make what later ones use again
            self.told[rank] = deque()
            return ""
        known.append((now_s, event["own_s"], event["own_steps"]))
        while now_s - known[0][0] > WINDOW_S:
            known.popleft()
        return self._judged(now_s)

    def _judged(self, now_s: float) -> str:
        spans = [now_s - known[0][0] if known else 0.0 for known in self.told.values()]
        if len(spans) < max(2, len(self.node)) or min(spans) < WINDOW_S / 2:
            return ""
        mean = {r: sum(s for _, s, _ in known) / sum(n for *_, n in known) for r, known in self.told.items()}
        for rank, own_s in mean.items():
            others_s = median(value for other, value in mean.items() if other != rank)
            slow = own_s > FACTOR * others_s and own_s > LEAST_S
            if slow and rank not in self.named:
                self.named.add(rank)
                where = f" on {self.node[rank]}" if rank in self.node else ""
                return (
                    f"rank {rank}{where} is slow, and all wait for it: its own work of a step takes {own_s * 1e3:.3g} "
                    f"ms, that of the others {others_s * 1e3:.3g} ms"
                )
            if rank in self.named and own_s < BACK * others_s:
                self.named.discard(rank)
                return f"rank {rank} is no longer slow: {own_s * 1e3:.3g} ms, the others {others_s * 1e3:.3g} ms"
        return ""
