"""Many coroutines at a time over a stream of items, their results in order, for callers that know no event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
END = object()


async def in_order(
    batches: Iterable[Sequence[T]], work: Callable[[T], Awaitable[R]], *, at_once: int
) -> AsyncIterator[list[R]]:
    """Yield the results of all items, in order, in lists of those that are there.

    Batches are made in a thread while earlier ones are worked on. Where work ends with an error, no further item is
    begun; what was begun is finished, then the error is raised: what it has paid for is not thrown away.
    """
    source, begun = iter(batches), deque[asyncio.Task[R]]()
    try:
        coming = _next(source)
        while (batch := await coming) is not END:
            coming = _next(source)
            for item in batch:
                begun.append(asyncio.ensure_future(work(item)))
                while len(begun) >= at_once:
                    yield await _finished(begun)
        while begun:
            yield await _finished(begun)
    except Exception:
        await asyncio.gather(*begun, return_exceptions=True)
        raise
    finally:
        for task in begun:
            task.cancel()


def _next(source: Iterator[Any]) -> asyncio.Future[Any]:
    return asyncio.get_running_loop().run_in_executor(None, next, source, END)


async def _finished(begun: deque[asyncio.Task[R]]) -> list[R]:
    """Return the results at the head of a queue: one at least, and those behind it that are there as well."""
    found = [await begun[0]]
    begun.popleft()
    while begun and begun[0].done() and begun[0].exception() is None:
        found.append(begun.popleft().result())
    return found


def run_through(
    opened: Sequence[AbstractAsyncContextManager[Any]], stream: Callable[[], AsyncIterator[list[R]]]
) -> Iterator[list[R]]:
    """Yield what an asynchronous stream does, while some things are open, on an event loop of its own."""
    with asyncio.Runner() as runner:
        try:
            for one in opened:
                runner.run(_opened(one))
            found = stream()
            while (some := runner.run(_after(found))) is not None:
                yield some
        finally:
            for one in opened:
                runner.run(_closed(one))


async def _opened(one: AbstractAsyncContextManager[Any]) -> None:
    await one.__aenter__()


async def _closed(one: AbstractAsyncContextManager[Any]) -> None:
    await one.__aexit__(None, None, None)


async def _after(stream: AsyncIterator[list[R]]) -> list[R] | None:
    return await anext(stream, None)
