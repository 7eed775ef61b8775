"""A signal ends a step of an event loop, not the middle of one."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from functools import partial
from typing import Any

import pytest

from rec.cli.ends import ended
from rec.event_loop import run

INTERRUPT = signal.default_int_handler


async def signalled(number: signal.Signals, told: list[str], times: int = 1) -> None:
    """Send this process a signal in the middle of a step, then wait."""
    try:
        for _ in range(times):
            os.kill(os.getpid(), number)
            told.append("step went on")
        await asyncio.sleep(60)
    finally:
        told.append("cleaned")


@pytest.mark.parametrize(
    ("number", "at_interrupt"),
    [(signal.SIGINT, INTERRUPT), (signal.SIGTERM, INTERRUPT), (signal.SIGTERM, signal.SIG_IGN)],
    ids=["SIGINT", "SIGTERM", "SIGTERM in the background"],
)
def test_a_signal_comes_between_two_steps_and_the_loop_stays_whole(number: signal.Signals, at_interrupt: Any) -> None:
    told: list[str] = []

    def command() -> None:
        with asyncio.Runner() as runner:
            try:
                run(runner, partial(signalled, number, told))
            finally:
                run(runner, partial(asyncio.sleep, 0))
                told.append("closed")

    before = signal.signal(signal.SIGINT, at_interrupt)
    try:
        assert ended(command, [], "") == 128 + number
        assert signal.getsignal(signal.SIGINT) == at_interrupt
    finally:
        signal.signal(signal.SIGINT, before)
    assert told == ["step went on", "cleaned", "closed"]


def test_a_second_signal_does_not_wait() -> None:
    told: list[str] = []
    with asyncio.Runner() as runner, pytest.raises(KeyboardInterrupt):
        run(runner, partial(signalled, signal.SIGINT, told, times=2))
    assert told == ["step went on", "cleaned"]


def test_a_signal_counts_though_the_work_was_done() -> None:
    async def done() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "done"

    with asyncio.Runner() as runner, pytest.raises(KeyboardInterrupt):
        run(runner, done)


def test_results_and_errors_are_handed_on_in_any_thread() -> None:
    async def failing() -> None:
        raise ValueError("odd")

    async def one() -> int:
        return 1

    found: list[int] = []

    def work() -> None:
        with asyncio.Runner() as runner:
            found.append(run(runner, one))
            with pytest.raises(ValueError, match="odd"):
                run(runner, failing)
            found.append(run(runner, one))

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [1, 1, 1, 1]
