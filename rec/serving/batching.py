"""Dynamic batches: requests that come while the model works are answered together in its next pass.

A request alone never waits for company. Where the pass before had several, the next one waits for more, up to a fifth
of the latency target: passes of few requests cost nearly as much as passes of many. The limit of a batch follows the
measured time of a pass: it shrinks when a pass takes more than half of the target, as a request may wait for one pass
and then take part in the next. Where a pass of one request already takes more than a quarter of the target, smaller
batches cannot meet it: there the batch grows, so that as many as possible are answered.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Busy(Exception):
    """Too many requests wait; `retry_s` says when there may be room."""

    def __init__(self, retry_s: int) -> None:
        super().__init__(f"too many requests wait; try again in {retry_s} s")
        self.retry_s = retry_s


class Late(Exception):
    """A request's time was up before it was answered."""


@dataclass(slots=True)
class _Waiting(Generic[T, R]):
    item: T
    due_s: float
    answer: asyncio.Future[R]


class Batcher(Generic[T, R]):
    """Collects requests of one event loop into batches for a function that runs in a thread, its own or a shared one.

    What fails in a batch of several is tried again one by one: an error reaches only the request that causes it.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R]],
        *,
        max_batch_size: int,
        max_queued: int,
        latency_target_s: float,
        observe: Callable[[int, float], Any] = lambda size, seconds: None,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self.work, self.observe = work, observe
        self.max_batch_size, self.max_queued, self.target_s = max_batch_size, max_queued, latency_target_s
        self.limit = float(max_batch_size)
        self.pass_s = self.single_s = 0.0
        self.queue: deque[_Waiting[T, R]] = deque()
        self.thread = thread or ThreadPoolExecutor(1, thread_name_prefix="model")
        self.running: asyncio.Task[None] | None = None
        self.full: asyncio.Future[None] | None = None

    async def ask(self, item: T, timeout_s: float) -> R:
        """Return the answer to one item of a request alone; see `ask_all`."""
        return (await self.ask_all([item], timeout_s))[0]

    async def ask_all(self, items: Sequence[T], timeout_s: float) -> list[R]:
        """Return the answers to all items of one request, which may be worked on in several passes.

        The first that fails fails the request, and the others are not worked on any more.

        Raises:
            Busy: `max_queued` items wait already.
            Late: the time is up.
        """
        if len(self.queue) >= self.max_queued:
            raise Busy(max(1, math.ceil(self.pass_s * len(self.queue) / max(self.limit, 1))))
        loop = asyncio.get_running_loop()
        due_s = time.monotonic() + timeout_s
        waiting: list[_Waiting[T, R]] = [_Waiting(item, due_s, loop.create_future()) for item in items]
        self.queue.extend(waiting)
        if self.full is not None and len(self.queue) >= int(self.limit) and not self.full.done():
            self.full.set_result(None)
        if self.running is None:
            self.running = loop.create_task(self._run())
        alarm = loop.call_later(timeout_s, _expire, waiting, timeout_s)
        try:
            if len(waiting) == 1:
                return [await waiting[0].answer]
            return list(await asyncio.gather(*(each.answer for each in waiting)))
        finally:
            alarm.cancel()
            for each in waiting:
                each.answer.cancel()

    def close(self) -> None:
        """End the thread once what it works on is done."""
        self.thread.shutdown(wait=False)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while batch := self._take():
                try:
                    answers, pass_s = await loop.run_in_executor(self.thread, self._timed, [w.item for w in batch])
                except Exception as error:
                    await self._apart(batch, error)
                else:
                    _give(batch, answers)
                    self._adapt(len(batch), pass_s)
                if len(batch) > 1 and len(self.queue) < int(self.limit):
                    await self._company()
        finally:
            self.running = None

    def _timed(self, items: Sequence[T]) -> tuple[Sequence[R], float]:
        """Return the answers and how long they took, without the wait for passes of others in the same thread.

        Raises:
            Exception: whatever `work` raises; what a future cannot carry, or would end the service, as its cause.
        """
        started_s = time.perf_counter()
        try:
            answers = self.work(items)
        except (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration) as error:
            raise RuntimeError(f"{type(error).__name__} where the model answers") from error
        if len(answers) != len(items):
            raise RuntimeError(f"{len(answers)} answers to {len(items)} requests")
        return answers, time.perf_counter() - started_s

    async def _apart(self, batch: Sequence[_Waiting[T, R]], error: Exception) -> None:
        """Answer the items of a batch that failed in halves, until what fails is alone and gets its error."""
        if len(batch) == 1:
            if not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        loop, middle = asyncio.get_running_loop(), len(batch) // 2
        for part in (batch[:middle], batch[middle:]):
            part = [waiting for waiting in part if not waiting.answer.done()]
            if not part:
                continue
            try:
                answers, pass_s = await loop.run_in_executor(self.thread, self._timed, [w.item for w in part])
            except Exception as own:
                await self._apart(part, own)
            else:
                _give(part, answers)
                self.observe(len(part), pass_s)

    async def _company(self) -> None:
        """Wait until a batch is full, at most a fifth of the latency target."""
        self.full = asyncio.get_running_loop().create_future()
        alarm = asyncio.get_running_loop().call_later(self.target_s / 5, _wake, self.full)
        await self.full
        alarm.cancel()
        self.full = None

    def _take(self) -> list[_Waiting[T, R]]:
        """Return the next batch: what waits, without those whose time is up or whose client is gone."""
        batch: list[_Waiting[T, R]] = []
        now = time.monotonic()
        while self.queue and len(batch) < max(1, int(self.limit)):
            waiting = self.queue.popleft()
            if not waiting.answer.done() and waiting.due_s > now:
                batch.append(waiting)
        return batch

    def _adapt(self, size: int, seconds: float) -> None:
        self.pass_s = seconds if not self.pass_s else 0.9 * self.pass_s + 0.1 * seconds
        if size == 1:
            self.single_s = seconds if not self.single_s else 0.8 * self.single_s + 0.2 * seconds
        slow = self.single_s > self.target_s / 4
        if seconds > self.target_s / 2 and size > 1 and not slow:
            self.limit = max(1.0, 0.8 * size)
        elif size >= int(self.limit):
            self.limit = min(float(self.max_batch_size), 2 * self.limit if slow else self.limit + 1)
        self.observe(size, seconds)


def _give(batch: Sequence[_Waiting[T, R]], answers: Sequence[R]) -> None:
    for waiting, answer in zip(batch, answers, strict=True):
        if not waiting.answer.done():
            waiting.answer.set_result(answer)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _expire(waiting: Sequence[_Waiting[Any, Any]], timeout_s: float) -> None:
    for each in waiting:
        if not each.answer.done():
            each.answer.set_exception(Late(f"no answer within {timeout_s * 1000:.0f} ms"))
