"""Many coroutines at a time over a stream, their results in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from rec.data.modalities.flow import in_order, run_through


class Work:
    """Sleeps, and notes how much is done at a time."""

    def __init__(self, first_s: float = 0.0, fails: int = -1) -> None:
        self.first_s, self.fails = first_s, fails
        self.open, self.most, self.begun, self.done = 0, 0, 0, 0

    async def __call__(self, number: int) -> int:
        self.begun += 1
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(self.first_s if number == 0 else 0.001 * (number % 3))
        self.open -= 1
        if number == self.fails:
            raise ValueError("it fails")
        self.done += 1
        return number


def results(work: Work, count: int = 100, at_once: int = 7, held: int = 20) -> list[int]:
    def stream() -> AsyncIterator[list[int]]:
        return in_order(batches(count), work, at_once=at_once, held=held)

    return [one for some in run_through([], stream) for one in some]


def batches(count: int) -> Iterator[range]:
    for start in range(0, count, 9):
        yield range(start, min(start + 9, count))


def test_results_come_in_order_and_few_are_worked_on_at_once() -> None:
    work = Work()
    assert results(work) == list(range(100))
    assert work.most == 7


def test_one_that_takes_long_holds_up_no_more_than_what_may_be_held() -> None:
    work = Work(first_s=0.3)

    async def watched() -> int:
        stream = in_order(batches(100), work, at_once=7, held=20)
        head = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.2)
        done = work.done
        await head
        return done

    assert asyncio.run(watched()) == 19


def test_after_an_error_what_was_begun_is_finished_and_nothing_more_is_begun() -> None:
    work = Work(fails=30)
    with pytest.raises(ValueError, match="it fails"):
        results(work)
    assert work.done == work.begun - 1
    assert work.begun < 60


def test_nothing_comes_of_nothing() -> None:
    assert results(Work(), 0) == []
