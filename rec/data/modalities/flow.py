"""Many coroutines at a time over a stream of items, their results in order, for callers that know no event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any, Generic, TypeVar

from rec.event_loop import run

T = TypeVar("T")
R = TypeVar("R")
END = object()
HANDED_S = 0.1
"""Results are handed over so often, at most: the event loop stands still meanwhile, and starting it takes time."""


async def in_order(
    batches: Iterable[Sequence[T]], work: Callable[[T], Awaitable[R]], *, at_once: int, held: int
) -> AsyncGenerator[list[R], None]:
    """Yield the results of all items, in order, in lists of those that are there.

    Batches are made in a thread while earlier ones are worked on. Where work ends with an error, no further item is
    begun; what was begun is finished, then the error is raised: what it has paid for is not thrown away.

    Args:
        batches: Items, taken as they are needed.
        work: What is done with each.
        at_once: Items that are worked on at the same time, at most.
        held: Items that are begun and not yielded, at most: one that takes long holds the others' results up, and not
            their work.
    """
    source, window = iter(batches), _Window[R](at_once)
    clock, handed_s = asyncio.get_running_loop().time, -HANDED_S
    try:
        coming = _next(source)
        while (batch := await coming) is not END:
            coming = _next(source)
            for item in batch:
                while len(window.begun) >= held or (window.has_head() and clock() - handed_s >= HANDED_S):
                    yield await window.head()
                    handed_s = clock()
                await window.room()
                window.begin(work(item))
        while window.begun:
            yield await window.head()
    except Exception:
        await asyncio.gather(*window.begun, return_exceptions=True)
        raise
    finally:
        for task in window.begun:
            task.cancel()
        await asyncio.gather(*window.begun, return_exceptions=True)


class _Window(Generic[R]):
    """Work that was begun and not handed over."""

    def __init__(self, at_once: int) -> None:
        self.at_once, self.open, self.changed = at_once, 0, asyncio.Event()
        self.begun: deque[asyncio.Future[R]] = deque()

    def begin(self, work: Awaitable[R]) -> None:
        """Begin some work."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._end)
        self.open += 1
        self.begun.append(task)

    def _end(self, _: object) -> None:
        self.open -= 1
        self.changed.set()

    async def room(self) -> None:
        """Wait until less than `at_once` is worked on."""
        while self.open >= self.at_once:
            self.changed.clear()
            await self.changed.wait()

    def has_head(self) -> bool:
        """Return whether the first result is there."""
        return bool(self.begun) and self.begun[0].done()

    async def head(self) -> list[R]:
        """Return the first result, and those behind it that are there as well."""
        found = [await self.begun[0]]
        self.begun.popleft()
        while self.has_head() and self.begun[0].exception() is None:
            found.append(self.begun.popleft().result())
        return found


async def settle(futures: Sequence[asyncio.Future[R]], work: Awaitable[Sequence[R]]) -> None:
    """Hand the results of some work to those who wait for one each, its error to all; some may wait no longer."""
    try:
        found = await work
    except Exception as error:
        for future in futures:
            if not future.done():
                future.set_exception(error)
        return
    for future, one in zip(futures, found, strict=True):
        if not future.done():
            future.set_result(one)


def _next(source: Iterator[Any]) -> asyncio.Future[Any]:
    return asyncio.get_running_loop().run_in_executor(None, next, source, END)


def run_through(
    opened: Sequence[AbstractAsyncContextManager[Any]], stream: Callable[[], AsyncGenerator[list[R], None]]
) -> Generator[list[R], None, None]:
    """Yield what an asynchronous stream does, while some things are open, on an event loop of its own.

    Closed early, as after Ctrl-C, it ends the stream first and then closes what is open.
    """
    with asyncio.Runner() as runner:
        found, stack = stream(), AsyncExitStack()
        try:
            run(runner, partial(_opened, stack, opened))
            while (some := run(runner, partial(_after, found))) is not None:
                yield some
        finally:
            run(runner, partial(_closed, stack, found))


async def _opened(stack: AsyncExitStack, opened: Sequence[AbstractAsyncContextManager[Any]]) -> None:
    for one in opened:
        await stack.enter_async_context(one)


async def _closed(stack: AsyncExitStack, stream: AsyncGenerator[Any, None]) -> None:
    async with stack:
        # Where a second Ctrl-C did not wait for the first one, what that was to end is still under way.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await stream.aclose()


async def _after(stream: AsyncGenerator[list[R], None]) -> list[R] | None:
    return await anext(stream, None)
