"""Requests to an HTTP server: as many at a time, and as many a minute, as it allows; again where they fail.

Ray Data's `HttpRequestProcessorConfig` is not what asks: its requests of a batch wait for each other, it knows neither
Retry-After nor budgets nor streamed answers, and one answer that fails ends the whole job with those that were given.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import aiohttp
import numpy as np
from yarl import URL

from rec.data.modalities.language_model import AskingStatus, Unanswered
from rec.data.modalities.pacing import Pace, asked_wait_s, wait_s
from rec.data.modalities.requests_config import RequestsConfig
from rec.errors import ConfigError, DataError

T = TypeVar("T")
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses behind which the same request may succeed."""
OF_ONE = (400, 413, 422)
"""Statuses that may be about one question alone, as a prompt that is too long."""
SHOWN = 300
"""Letters of a server's words that are shown."""


class Failure(Exception):
    """A request failed and may be made again, after as long as the server asks for."""

    def __init__(self, text: str, wait_s: float | None = None) -> None:
        super().__init__(text)
        self.wait_s = wait_s


class Refused(Unanswered):
    """The server refuses what one request asks, and may answer others."""


class _Request(NamedTuple):
    """A request that waits for a place: of several, one that is made again comes first, then the oldest."""

    is_first: bool
    number: int
    data: bytes
    tokens: int
    read: Callable[[aiohttp.ClientResponse], Awaitable[Any]]
    answer: asyncio.Future[Any]


class Client:
    """Asks one server; open while it is a context manager, on one event loop."""

    def __init__(
        self,
        config: RequestsConfig,
        where: str,
        told: AskingStatus,
        chance: np.random.Generator,
        *,
        streamed: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare to ask.

        Args:
            config: The keys of requests.
            where: The section that holds them, for errors.
            told: Where requests and failures are counted.
            chance: Draws waits after failures.
            streamed: Whether answers come in parts: then the time between two parts counts, however long all take.
            environment: Where the key is looked for; None is the process's own.

        Raises:
            ConfigError: there is no such key.
        """
        self.config, self.where, self.told, self.chance, self.streamed = config, where, told, chance, streamed
        environment = os.environ if environment is None else environment
        if config.key and not environment.get(config.key):
            raise ConfigError(f"{where}.key: the environment has no variable {config.key!r}, or it is empty")
        self.secret = environment.get(config.key, "") if config.key else ""
        self.pace = Pace(config.requests_per_minute, config.tokens_per_minute)
        self.in_a_row = 0
        """Questions without an answer since the last one that had one."""
        self.ended: DataError | None = None
        """Why nothing more is asked."""

    async def __aenter__(self) -> Self:
        config = self.config
        limit = {"sock_read": config.timeout_s} if self.streamed else {"total": config.timeout_s}
        headers = {"Content-Type": "application/json"}
        if self.secret:
            headers["Authorization"] = f"Bearer {self.secret}"
        self.url = URL(self.config.url)
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=0),
            timeout=aiohttp.ClientTimeout(**limit, sock_connect=config.timeout_s),
            headers=headers,
        )
        self.waiting: asyncio.PriorityQueue[_Request] = asyncio.PriorityQueue()
        self.numbers = itertools.count()
        self.places = [asyncio.ensure_future(self._fill()) for _ in range(config.concurrency)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for place in self.places:
            place.cancel()
        await asyncio.gather(*self.places, return_exceptions=True)
        await self.session.close()

    async def ask(
        self, data: bytes, tokens: int, read: Callable[[aiohttp.ClientResponse], Awaitable[T]], *, questions: int = 1
    ) -> T:
        """Return what `read` makes of the server's answer, after as many requests as it takes.

        Args:
            data: What is sent.
            tokens: What it counts for in a limit of tokens a minute.
            read: Reads an answer of status 200; a `Failure` that it raises lets the request be made again.
            questions: How many are asked at once; that several are refused together says nothing of each.

        Raises:
            Unanswered: the server has no answer to this question.
            DataError: it has none to any.
        """
        try:
            found = await self._after_retries(data, tokens, read)
        except Unanswered as error:
            if questions == 1 or not isinstance(error, Refused):
                self._refuse_all(str(error))
            raise
        except DataError as error:
            self.ended = error
            raise
        self.in_a_row = 0
        return found

    def _refuse_all(self, fault: str) -> None:
        """Count a question without an answer; a server that answers none of many is not asked on."""
        self.in_a_row += 1
        if self.in_a_row > max(10, self.config.concurrency):
            self.ended = DataError(
                f"{fault}; {self.in_a_row} questions in a row have no answer. Answers so far are kept: the same "
                "command goes on"
            )
            raise self.ended

    async def _after_retries(
        self, data: bytes, tokens: int, read: Callable[[aiohttp.ClientResponse], Awaitable[T]]
    ) -> T:
        for attempt in range(self.config.retries + 1):
            answer = asyncio.get_running_loop().create_future()
            self.waiting.put_nowait(_Request(attempt == 0, next(self.numbers), data, tokens, read, answer))
            try:
                found: T = await answer
                return found
            except Failure as error:
                failure: Failure = error
            except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
                failure = Failure(f"{self.config.url}: {type(error).__name__} {error}".rstrip())
            self.told.fault = self._hidden(str(failure))
            if failure.wait_s is not None:
                self.pace.hold(failure.wait_s)
            if attempt < self.config.retries:
                await asyncio.sleep(max(wait_s(attempt, self.chance), failure.wait_s or 0.0))
        raise Unanswered(f"{self.where}: no answer after {self.config.retries + 1} requests: {self.told.fault}")

    async def _fill(self) -> None:
        """Keep one of the server's places filled: the next request goes out before anything is made of an answer."""
        while True:
            request = await self.waiting.get()
            if request.answer.done():  # who asked is gone
                continue
            try:
                found = await self._once(request)
            except Exception as error:
                if not request.answer.done():
                    request.answer.set_exception(error)
                await asyncio.sleep(0)  # who asked may end it all
            else:
                if not request.answer.done():
                    request.answer.set_result(found)

    async def _once(self, request: _Request) -> Any:
        if self.ended is not None:
            raise self.ended
        await self.pace.turn(request.tokens)
        self.told.requests += 1
        self.told.retries += not request.is_first
        async with self.session.post(self.url, data=request.data) as response:
            if response.status != 200:
                await self._refuse(response)
            return await request.read(response)

    async def _refuse(self, response: aiohttp.ClientResponse) -> None:
        """Tell a failure that may pass from one that will not."""
        said = self._hidden((await response.content.read(4 * SHOWN)).decode(errors="replace")[:SHOWN].strip())
        where = f"{self.where}.url: {self.config.url} answered {response.status}: {said}"
        if response.status in AGAIN:
            raise Failure(where, asked_wait_s(response.headers.get("Retry-After")))
        if response.status in OF_ONE:
            raise Refused(where)
        named = f" ({self.where}.key names {self.config.key!r})" if self.config.key else ""
        raise DataError(f"{where}{named if response.status in (401, 403) else ''}; answers so far are kept")

    def _hidden(self, text: str) -> str:
        """Return a text without the key, which a server may repeat."""
        return text.replace(self.secret, "[key]") if self.secret else text
