"""Times of actions, alone or in turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What an action took in each of its rounds, in seconds."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.rounds)

    def scaled(self, factor: float) -> Times:
        """Return the times of an action that does `factor` times as much."""
        return Times(rounds=tuple(factor * seconds for seconds in self.rounds))


def median_s(action: Callable[[], Any], repeats: int, warm: int = 1) -> float:
    """Return the median time of `action` in seconds."""
    for _ in range(warm):
        action()
    return statistics.median(seconds(action) for _ in range(repeats))


def seconds(action: Callable[[], Any]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def cpu_s(action: Callable[[], Any]) -> float:
    """Return the processor's time that one call takes in this process."""
    start = time.process_time()
    action()
    return time.process_time() - start


def side_by_side(a: Callable[[], Any], b: Callable[[], Any], repeats: int) -> tuple[Times, Times]:
    """Return the times of two actions that take turns, so that a noisy machine is noisy to both."""
    first, second = in_turns([a, b], repeats)
    return first, second


def in_turns(
    actions: Sequence[Callable[[], Any]],
    repeats: int,
    budget_s: float = math.inf,
    clock: Callable[[Callable[[], Any]], float] = seconds,
) -> list[Times]:
    """Return the times of actions that take turns: 3 rounds after one to warm up, more while time is left.

    `clock` tells what one call takes: `seconds`, or `cpu_s` where the machine has other work to do.
    """
    rounds: list[list[float]] = []
    start = time.perf_counter()
    for number in range(repeats + 1):
        if number > 3 and time.perf_counter() - start > budget_s:
            break
        rounds.append([clock(action) for action in actions])
    return [Times(rounds=times) for times in zip(*rounds[1:], strict=True)]
