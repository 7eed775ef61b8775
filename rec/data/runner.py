"""What runs the parts of preparing: a loop in this process, or Ray Data over a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from rec.data.modalities.config import WriterConfig
from rec.errors import ConfigError
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


class Pool(Protocol):
    """Workers that have been made, and take task after task until they are closed."""

    size: int

    def submit(self, worker: int, task: Any) -> Future[Any]:
        """Let one worker do a task, after those that it was given before."""

    def close(self) -> None:
        """End the workers."""


class Runner(Protocol):
    """Runs the parts of a pass; results come back in the order of the tasks."""

    def map(self, function: Callable[[T], R], tasks: Sequence[T], title: str) -> list[R]:
        """Return `function(task)` for every task."""

    def map_actors(
        self, make: Callable[[], Callable[[T], R]], tasks: Sequence[T], title: str, actors: Actors
    ) -> list[R]:
        """Return `make()(task)` for every task; `make` is called once per actor and may take long."""

    def pool(self, make: Callable[[], Callable[[Any], Any]], actors: Actors) -> Pool:
        """Return workers that call `make()(task)` for tasks that are not all known beforehand."""

    def vllm_pool(self, config: WriterConfig) -> Pool:
        """Return one worker that answers lists of conversations with vLLM.

        Raises:
            ConfigError: it is not installed, or nothing runs on Ray.
        """


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

    def pool(self, make: Callable[[], Callable[[Any], Any]], actors: Actors) -> Pool:
        """Return one worker, a thread of this process."""
        return Thread(make)

    def vllm_pool(self, config: WriterConfig) -> Pool:
        """Refuse what only Ray runs."""
        raise ConfigError("data.modalities.writer.kind: 'vllm' runs on Ray; set parallel.workers to 1 or more")


class Thread(Generic[T, R]):
    """A pool of one thread; what it calls is made with the first task."""

    size = 1

    def __init__(self, make: Callable[[], Callable[[T], R]]) -> None:
        self.make, self.function, self.thread = make, None, ThreadPoolExecutor(1, thread_name_prefix="pool")

    function: Callable[[T], R] | None

    def submit(self, worker: int, task: T) -> Future[R]:
        """Let the thread do a task."""
        return self.thread.submit(self._call, task)

    def _call(self, task: T) -> R:
        if self.function is None:
            self.function = self.make()
        return self.function(task)

    def close(self) -> None:
        """End the thread after its task."""
        self.thread.shutdown(wait=False, cancel_futures=True)


def part_bounds(rows: int, parts: int, part: int) -> tuple[int, int]:
    """Return the first row of one of several equal parts and the row after its last."""
    return rows * part // parts, rows * (part + 1) // parts
