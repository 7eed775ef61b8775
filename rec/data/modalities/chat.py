"""A model behind an HTTP server that speaks the chat-completions protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import aiohttp

from rec.data.modalities.budget import Budget
from rec.data.modalities.client import Client, Failure
from rec.data.modalities.config import WriterConfig
from rec.data.modalities.counting import TokenCount
from rec.data.modalities.language_model import WHOLE, Answer, ChatMessage, Conversation, LanguageModel, TokenUsage
from rec.json_text import json_text
from rec.seeds import generator

KEY = "data.modalities.writer"


class ChatModel(LanguageModel):
    """Asks a server of chat completions."""

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
        streamed = {"stream": True, "stream_options": {"include_usage": True}} if config.stream else {}
        self.start = f'{json_text({**self.identity(), **streamed})[:-1]}, "messages": ['
        """What all requests start with."""
        chance = generator(config.seed, "waits of requests")
        self.client = Client(config, KEY, self.told, chance, streamed=config.stream, environment=environment)

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
        await self.client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.__aexit__(kind, error, trace)

    async def answer(self, conversation: Conversation) -> Answer:
        """Return the server's answer, after as many requests as it takes.

        Raises:
            BudgetSpent: it would cost more than is left.
            Unanswered: the server has no answer to this question.
            DataError: it has none to any.
        """
        asked, longest = self.count.of(conversation), self.config.max_tokens
        data = f"{self.start}{', '.join(map(_in_json, conversation))}]}}".encode()

        async def read(response: aiohttp.ClientResponse) -> Answer:
            told = await _streamed(response) if self.config.stream else _whole(await response.read())
            text, finish, usage = told
            return Answer(text, finish, usage or TokenUsage(asked, self.count.of_text(text)))

        async with self.budget.reserve(TokenUsage(asked, longest)) as bill:
            found = await self.client.ask(data, asked + (longest if self.config.tokens_per_minute else 0), read)
            self.client.pace.tokens.correct(found.usage.output - longest)
            bill.usage = found.usage
            self.told.usage += found.usage
            return found


@lru_cache(256)
def _in_json(message: ChatMessage) -> str:
    """Return a message as requests hold it; those that all conversations start with stay at hand."""
    return json_text(message._asdict())


def _whole(data: bytes) -> tuple[str, str, TokenUsage | None]:
    """Return text, end and usage of an answer in one piece."""
    try:
        told = json.loads(data)
        choice = told["choices"][0]
        text, finish = choice["message"]["content"] or "", choice.get("finish_reason") or WHOLE
        usage = _usage(told.get("usage"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Failure(f"an answer is no chat completion ({type(error).__name__}: {error})") from error
    return str(text), str(finish), usage


async def _streamed(response: aiohttp.ClientResponse) -> tuple[str, str, TokenUsage | None]:
    """Return text, end and usage of an answer that comes in parts.

    Raises:
        Failure: it breaks off.
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
        raise Failure(f"a streamed answer is no chat completion ({type(error).__name__}: {error})") from error
    if not finish:
        raise Failure("a streamed answer broke off")
    return "".join(parts), finish, usage


def _usage(told: Any) -> TokenUsage | None:
    return TokenUsage(int(told["prompt_tokens"]), int(told["completion_tokens"])) if told else None
