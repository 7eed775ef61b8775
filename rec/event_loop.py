"""Running coroutines from code that knows no event loop, so that a signal leaves the loop whole."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

R = TypeVar("R")
Handler = Callable[[int, Any], Any]


def run(runner: asyncio.Runner, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Run some work on a runner's loop and return its result; Ctrl-C and SIGTERM end it between two of its steps.

    What handles a signal in this process is called once the loop stands still: an exception that comes out of nowhere
    in the middle of a step leaves a loop that cannot be used to close what is open (`asyncio.Runner` cares for Ctrl-C
    alone, and not where a shell started the process in the background). A second signal is handled at once.
    """
    loop, tasks = runner.get_loop(), list[asyncio.Task[R]]()

    def end() -> None:
        for task in tasks:
            task.cancel()
        loop.call_soon_threadsafe(lambda: None)

    with _held(end) as came:
        tasks.append(loop.create_task(work()))
        if came:
            end()
        return loop.run_until_complete(tasks[0])


@contextmanager
def _held(end: Callable[[], None]) -> Iterator[list[int]]:
    """Let the first signal end some work, and be handled after it."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before: dict[int, Handler] = {number: told for number in numbers if callable(told := signal.getsignal(number))}
    came: list[int] = []

    def hold(number: int, frame: Any) -> None:
        came.append(number)
        if len(came) > 1:
            before[number](number, frame)
        end()

    for number in before:
        signal.signal(number, hold)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            before[came[0]](came[0], None)
