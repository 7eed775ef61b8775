"""A model behind an HTTP server that speaks the chat-completions protocol.

Ray Data's `HttpRequestProcessorConfig` is not what asks: its requests of a batch wait for each other, it knows neither
Retry-After nor budgets nor streamed answers, and one answer that fails ends the whole job with those that were given.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from rec.data.modalities.budget import Budget
from rec.data.modalities.counting import TokenCount
from rec.data.modalities.language_model import WHOLE, Answer, Conversation, LanguageModel, Unanswered, Usage
from rec.data.modalities.pacing import Pace, asked_wait_s, wait_s
from rec.errors import ConfigError, DataError
from rec.json_text import json_text
from rec.keys_modalities import WriterConfig
from rec.seeds import generator

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses behind which the same request may succeed."""
OF_ONE = (400, 413, 422)
"""Statuses that may be about one question alone, as a prompt that is too long."""
SHOWN = 300
"""Letters of a server's words that are shown."""
KEY = "data.modalities.writer"


class _Failure(Exception):
    """A request failed and may be made again, after as long as the server asks for."""

    def __init__(self, text: str, wait_s: float | None = None) -> None:
        super().__init__(text)
        self.wait_s = wait_s


class ChatModel(LanguageModel):
    """Asks a server: as many requests at a time, and as many a minute, as it allows."""

    def __init__(
        self,
        config: WriterConfig,
        budget: Budget,
        count: TokenCount,
        *,
        schema: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.budget, self.count, self.schema = config, budget, count, schema
        environment = os.environ if environment is None else environment
        if config.key and not environment.get(config.key):
            raise ConfigError(f"{KEY}.key: the environment has no variable {config.key!r}, or it is empty")
        self.secret = environment.get(config.key, "") if config.key else ""
        streamed = {"stream": True, "stream_options": {"include_usage": True}} if config.stream else {}
        self.fixed = {**self.identity(), **streamed}
        """What all requests have in common."""
        self.pace = Pace(config.requests_per_minute, config.tokens_per_minute)
        self.places = asyncio.Semaphore(config.concurrency)
        self.chance = generator(config.seed, "waits of requests")
        self.in_a_row = 0
        """Questions without an answer since the last one that had one."""
        self.ended: DataError | None = None
        """Why nothing more is asked."""

    def identity(self) -> Mapping[str, Any]:
        """Return the model, and what every request tells it beside the conversation."""
        config = self.config
        told = {"model": config.model, "temperature": config.temperature, "max_tokens": config.max_tokens}
        if config.seed:
            told["seed"] = config.seed
        return told | self._format()

    def _format(self) -> dict[str, Any]:
        if self.config.format == "none":
            return {}
        form: dict[str, Any] = {"type": self.config.format}
        if self.config.format == "json_schema":
            form["json_schema"] = {"name": "modalities", "strict": True, "schema": self.schema}
        return {"response_format": form}

    async def __aenter__(self) -> Self:
        config = self.config
        # Of a stream, the time between two words counts, however long the whole takes.
        limit = {"sock_read": config.timeout_s} if config.stream else {"total": config.timeout_s}
        headers = {"Content-Type": "application/json"}
        if self.secret:
            headers["Authorization"] = f"Bearer {self.secret}"
        self.url = URL(config.url)
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=0),
            timeout=aiohttp.ClientTimeout(**limit, sock_connect=config.timeout_s),
            headers=headers,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    async def answer(self, conversation: Conversation) -> Answer:
        """Return the server's answer, after as many requests as it takes.

        Raises:
            BudgetSpent: it would cost more than is left.
            Unanswered: the server has no answer to this question.
            DataError: it has none to any.
        """
        asked = self.count.of(conversation)
        async with self.budget.reserve(Usage(asked, self.config.max_tokens)) as bill:
            try:
                found = await self._after_retries(conversation, asked)
            except Unanswered as error:
                self._refuse_all(str(error))
                raise
            except DataError as error:
                self.ended = error
                raise
            self.in_a_row, bill.usage = 0, found.usage
            self.told.usage += found.usage
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

    async def _after_retries(self, conversation: Conversation, asked: int) -> Answer:
        messages = [{"role": role, "content": content} for role, content in conversation]
        data = json_text({**self.fixed, "messages": messages}).encode()
        for attempt in range(self.config.retries + 1):
            async with self.places:
                if self.ended is not None:
                    raise self.ended
                await self.pace.turn(asked + (self.config.max_tokens if self.config.tokens_per_minute else 0))
                self.told.requests += 1
                self.told.retries += attempt > 0
                try:
                    found = await self._once(data, asked)
                except _Failure as error:
                    failure: _Failure = error
                except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
                    failure = _Failure(f"{self.config.url}: {type(error).__name__} {error}".rstrip())
                else:
                    self.pace.tokens.correct(found.usage.output - self.config.max_tokens)
                    return found
            self.told.fault = self._hidden(str(failure))
            if failure.wait_s is not None:
                self.pace.hold(failure.wait_s)
            if attempt < self.config.retries:
                await asyncio.sleep(max(wait_s(attempt, self.chance), failure.wait_s or 0.0))
        raise Unanswered(f"{KEY}: no answer after {self.config.retries + 1} requests: {self.told.fault}")

    async def _once(self, data: bytes, asked: int) -> Answer:
        async with self.session.post(self.url, data=data) as response:
            if response.status != 200:
                await self._refuse(response)
            if self.config.stream:
                told = await _streamed(response)
            else:
                told = _whole(await response.read())
        text, finish, usage = told
        return Answer(text, finish, usage or Usage(asked, self.count.of_text(text)))

    async def _refuse(self, response: aiohttp.ClientResponse) -> None:
        """Tell a failure that may pass from one that will not."""
        said = self._hidden((await response.content.read(4 * SHOWN)).decode(errors="replace")[:SHOWN].strip())
        where = f"{KEY}.url: {self.config.url} answered {response.status}: {said}"
        if response.status in AGAIN:
            raise _Failure(where, asked_wait_s(response.headers.get("Retry-After")))
        if response.status in OF_ONE:
            raise Unanswered(where)
        named = f" (data.modalities.writer.key names {self.config.key!r})" if self.config.key else ""
        raise DataError(f"{where}{named if response.status in (401, 403) else ''}; answers so far are kept")

    def _hidden(self, text: str) -> str:
        """Return a text without the key, which a server may repeat."""
        return text.replace(self.secret, "[key]") if self.secret else text


def _whole(data: bytes) -> tuple[str, str, Usage | None]:
    """Return text, end and usage of an answer in one piece."""
    try:
        told = json.loads(data)
        choice = told["choices"][0]
        text, finish = choice["message"]["content"] or "", choice.get("finish_reason") or WHOLE
        usage = _usage(told.get("usage"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _Failure(f"an answer is no chat completion ({type(error).__name__}: {error})") from error
    return str(text), str(finish), usage


async def _streamed(response: aiohttp.ClientResponse) -> tuple[str, str, Usage | None]:
    """Return text, end and usage of an answer that comes in parts.

    Raises:
        _Failure: it breaks off.
    """
    parts: list[str] = []
    finish, usage = "", None
    try:
        async for line in response.content:
            said = line.strip()
            if not said.startswith(b"data:"):
                continue
            said = said.removeprefix(b"data:").strip()
            if said == b"[DONE]":
                break
            told = json.loads(said)
            usage = _usage(told.get("usage")) or usage
            for choice in told.get("choices") or ():
                parts.append((choice.get("delta") or {}).get("content") or "")
                finish = choice.get("finish_reason") or finish
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _Failure(f"a streamed answer is no chat completion ({type(error).__name__}: {error})") from error
    if not finish:
        raise _Failure("a streamed answer broke off")
    return "".join(parts), finish, usage


def _usage(told: Any) -> Usage | None:
    return Usage(int(told["prompt_tokens"]), int(told["completion_tokens"])) if told else None
