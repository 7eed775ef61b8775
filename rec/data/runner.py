"""What runs the parts of preparing: a loop in this process, or Ray Data over a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rec.progress import Progress

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Actors:
    """How many processes of their own work on tasks, and what each reserves."""

    count: int = 1
    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def device(self) -> str:
        """Where their models lie: on the GPU that is reserved; one that is not may be another's, however visible."""
        return "cuda" if self.gpus else "cpu"


class Runner(Protocol):
    """Runs the parts of a pass; results come back in the order of the tasks."""

    def map(self, function: Callable[[T], R], tasks: Sequence[T], title: str) -> list[R]:
        """Return `function(task)` for every task."""

    def map_actors(
        self, make: Callable[[], Callable[[T], R]], tasks: Sequence[T], title: str, actors: Actors
    ) -> list[R]:
        """Return `make()(task)` for every task; `make` is called once per actor and may take long."""


class InProcess:
    """Runs everything in a loop in this process."""

    def map(self, function: Callable[[T], R], tasks: Sequence[T], title: str) -> list[R]:
        """Return `function(task)` for every task."""
        done = []
        with Progress(title, len(tasks)) as progress:
            for task in tasks:
                done.append(function(task))
                progress.show(len(done))
        return done

    def map_actors(
        self, make: Callable[[], Callable[[T], R]], tasks: Sequence[T], title: str, actors: Actors
    ) -> list[R]:
        """Return `make()(task)` for every task."""
        return self.map(make(), tasks, title) if tasks else []


def part_bounds(rows: int, parts: int, part: int) -> tuple[int, int]:
    """Return the first row of one of several equal parts and the row after its last."""
    return rows * part // parts, rows * (part + 1) // parts
