"""One measured value beside its limit."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rec.report.text import table


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement: `ratio` is value / limit, and `goal` what it may be at most (or what value may be at most)."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    goal: float | None = None

    @property
    def ratio(self) -> float | None:
        """Return value / limit."""
        return None if self.limit is None else self.value / self.limit

    @property
    def met(self) -> bool | None:
        """Return whether the goal is met, None without one."""
        found = self.value if self.ratio is None else self.ratio
        return None if self.goal is None else found <= self.goal

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain values."""
        return asdict(self) | {"ratio": self.ratio, "met": self.met}


def show(rows: list[Row]) -> str:
    """Return the rows as a table under a line on machine and versions."""
    lines = [
        [
            row.name,
            f"{row.value:.4g}",
            row.unit,
            "" if row.limit is None else f"{row.limit:.4g}",
            "" if row.ratio is None else f"{row.ratio:.3f}",
            "" if row.goal is None else f"{row.goal:g}",
            {True: "yes", False: "no", None: ""}[row.met],
        ]
        for row in rows
    ]
    return machine() + "\n" + table(["name", "value", "unit", "limit", "ratio", "goal", "met"], lines)


def machine() -> str:
    """Return what was measured on."""
    return (
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} torch threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def median_s(action: Callable[[], Any], repeats: int, warm: int = 1) -> float:
    """Return the median time of `action` in seconds."""
    for _ in range(warm):
        action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def side_by_side(a: Callable[[], Any], b: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the median times of two actions that take turns, so that a noisy machine is noisy to both."""
    first, second = in_turns([a, b], repeats)
    return first, second


def in_turns(actions: Sequence[Callable[[], Any]], repeats: int, budget_s: float = math.inf) -> list[float]:
    """Return the median times of actions that take turns: 3 rounds after one to warm up, more while time is left."""
    rounds: list[list[float]] = []
    start = time.perf_counter()
    for number in range(repeats + 1):
        if number > 3 and time.perf_counter() - start > budget_s:
            break
        rounds.append([median_s(action, 1, 0) for action in actions])
    return [statistics.median(times) for times in zip(*rounds[1:], strict=True)]
