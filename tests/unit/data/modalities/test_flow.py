"""Many coroutines at a time over a stream, their results in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from rec.data.modalities import flow
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
    def stream() -> AsyncGenerator[list[int], None]:
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


def test_a_stream_that_is_closed_early_ends_its_work_before_what_it_works_with_is_closed() -> None:
    told: list[str] = []

    @asynccontextmanager
    async def door() -> AsyncGenerator[None, None]:
        yield
        told.append("closed")

    async def work(number: int) -> int:
        try:
            await asyncio.sleep(60 if number else 0)
        except asyncio.CancelledError:
            told.append("ended")
            raise
        return number

    opened: list[AbstractAsyncContextManager[None]] = [door()]
    stream = run_through(opened, lambda: in_order([range(4)], work, at_once=4, held=4))
    assert next(stream) == [0]
    stream.close()
    assert told == ["ended", "ended", "ended", "closed"]


def test_what_did_not_open_is_not_closed() -> None:
    told: list[str] = []

    @asynccontextmanager
    async def door(opens: bool) -> AsyncGenerator[None, None]:
        if not opens:
            raise ValueError("it is locked")
        yield
        told.append("closed")

    with pytest.raises(ValueError, match="it is locked"):
        list(run_through([door(True), door(False)], lambda: in_order(batches(9), Work(), at_once=1, held=1)))
    assert told == ["closed"]


def test_results_that_are_there_are_handed_over_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "HANDED_S", 3600.0)

    async def sizes() -> list[int]:
        return [len(some) async for some in in_order(batches(900), Work(), at_once=100, held=900)]

    found = asyncio.run(sizes())
    assert sum(found) == 900
    assert len(found) <= 1 + 100  # the first one, and the last hundred as they end
