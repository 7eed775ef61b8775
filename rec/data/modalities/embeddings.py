"""Vectors of texts by an HTTP server that speaks the embeddings protocol: many texts a request, none asked twice."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import aiohttp
import numpy as np

from rec.data.config import EndpointConfig
from rec.data.modalities.answers import Answers
from rec.data.modalities.budget import Budget, BudgetSpent, Prices
from rec.data.modalities.client import Client, Failure, Refused
from rec.data.modalities.counting import TokenCount
from rec.data.modalities.flow import in_order, run_through
from rec.data.modalities.language_model import (
    WHOLE,
    Answer,
    AskingStatus,
    ChatMessage,
    TokenUsage,
    Unanswered,
    question_key,
)
from rec.errors import DataError
from rec.json_text import json_text
from rec.progress import Progress
from rec.sections import counted
from rec.seeds import generator

KEY = "data.text.endpoint"
AHEAD = 2
"""Requests that are begun for each that may be on its way."""
SHOWN = 60
"""Letters of a text that are shown."""


class EndpointEncoder:
    """Texts in, float32 vectors out; each text's vector is kept on disk by the model and the text once it is there."""

    def __init__(
        self,
        config: EndpointConfig,
        *,
        batch_size: int,
        cache: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.config, self.batch_size, self.cache, self.environment = config, batch_size, cache, environment
        self.told, self.spent = AskingStatus(), TokenUsage()
        self.kept = 0
        """Texts whose vector was there."""
        self.count = TokenCount(config.tokenizer, f"{KEY}.tokenizer")
        self.fixed: dict[str, Any] = {"model": config.model, "encoding_format": "float"}
        if config.dimensions:
            self.fixed["dimensions"] = config.dimensions
        self.identity = json_text({"model": config.model, "dimensions": config.dimensions}, sort_keys=True)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return (len(texts), M) float32, zeros for texts without a letter; M is the server's, 1 where none is asked.

        Raises:
            ConfigError: the environment has no such key.
            DataError: the server refuses the key or a text, answers nothing, or the budget is spent; vectors so far
                are kept, and the same command goes on.
        """
        told = [text.strip() for text in texts]
        with Answers(self.cache, f"{KEY}.cache") as answers:
            found = self._found(dict.fromkeys(text for text in told if text), answers)
        widths = sorted({len(vector) for vector in found.values()}) or [1]
        if len(widths) > 1:
            raise DataError(
                f"{KEY}.url: {self.config.url} gives vectors of {widths[0]} and of {widths[-1]} numbers by one name of "
                f"a model, {self.config.model!r}; delete {self.cache} if the model behind the name has changed"
            )
        nothing = np.zeros(widths[0], np.float32)
        return np.stack([found.get(text, nothing) for text in told]) if told else np.zeros((0, 1), np.float32)

    def _found(self, texts: Mapping[str, None], answers: Answers) -> dict[str, np.ndarray]:
        """Return the vector of every text, after asking for those that are not there."""
        found, asked = {}, list[str]()
        for text in texts:
            answer = answers.get(self._key(text))
            if answer is None:
                asked.append(text)
            else:
                found[text] = _unpacked(answer.text)
        self.kept += len(found)
        batches = [asked[at : at + self.batch_size] for at in range(0, len(asked), self.batch_size)]
        if not batches:
            return found
        asking = _Asking(self, answers)
        at_once = AHEAD * self.config.concurrency

        def stream() -> AsyncGenerator[list[dict[str, np.ndarray]], None]:
            return in_order([batches], asking.vectors, at_once=at_once, held=8 * at_once)

        done = 0
        with Progress("prepare: ask for vectors of texts", len(asked)) as progress:
            try:
                for some in run_through([asking.client], stream):
                    for part in some:
                        found |= part
                        done += len(part)
                    progress.show(done, f"{self.told.usage.total:,} tokens, {counted(self.told.retries, 'retry')}")
            except (BudgetSpent, Unanswered) as error:
                raise DataError(f"{error}; {self._so_far(len(asked), answers, asked)}") from error
            finally:
                self.spent = asking.budget.spent
        return found

    def _so_far(self, asked: int, answers: Answers, texts: Sequence[str]) -> str:
        there = sum(answers.get(self._key(text)) is not None for text in texts)
        return (
            f"{there:,} of {counted(asked, 'text')} that were to be asked for have their vectors, which are kept in "
            f"{self.cache}: the same command goes on with them"
        )

    def _key(self, text: str) -> bytes:
        return question_key(self.identity, (ChatMessage("input", text),))


class _Asking:
    """The requests of one call, on one event loop."""

    def __init__(self, encoder: EndpointEncoder, answers: Answers) -> None:
        config = encoder.config
        self.encoder, self.answers = encoder, answers
        self.client = Client(
            config, KEY, encoder.told, generator(0, "waits of requests"), environment=encoder.environment
        )
        self.budget = Budget(config.budget_tokens, config.budget_money, Prices(config.input_price), where=KEY)
        self.budget.spent = encoder.spent

    async def vectors(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the vectors of some texts; what a server refuses as too much it is asked for by halves."""
        try:
            return await self._asked(texts)
        except Refused as error:
            if len(texts) == 1:
                cut = texts[0][:SHOWN]
                raise DataError(f"{error}; the text of {len(texts[0]):,} characters begins {cut!r}") from error
        half = len(texts) // 2
        return await self.vectors(texts[:half]) | await self.vectors(texts[half:])

    async def _asked(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        encoder = self.encoder
        each = [encoder.count.of_text(text) for text in texts]
        data = json_text({**encoder.fixed, "input": list(texts)}).encode("utf-8", "replace")

        async def read(response: aiohttp.ClientResponse) -> tuple[list[np.ndarray], TokenUsage | None]:
            return vectors_of(await response.read(), len(texts))

        async with self.budget.reserve(TokenUsage(sum(each))) as bill:
            vectors, usage = await self.client.ask(data, sum(each), read, questions=len(texts))
            bill.usage = usage or TokenUsage(sum(each))
            encoder.told.usage += bill.usage
            for text, vector, tokens in zip(texts, vectors, each, strict=True):
                self.answers.hold(encoder._key(text), Answer(_packed(vector), WHOLE, TokenUsage(tokens)))
            self.answers.flush()
        return dict(zip(texts, vectors, strict=True))


def vectors_of(data: bytes, count: int) -> tuple[list[np.ndarray], TokenUsage | None]:
    """Return the vectors of an answer in the order of what was asked, and its usage where it is told.

    Raises:
        Failure: it is no answer to `count` texts.
    """
    try:
        told = json.loads(data)
        by_index = {int(one["index"]): _vector(one["embedding"]) for one in told["data"]}
        usage = TokenUsage(int(told["usage"]["prompt_tokens"])) if told.get("usage") else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Failure(f"an answer is no list of embeddings ({type(error).__name__}: {error})") from error
    vectors = [by_index[n] for n in range(count) if n in by_index]
    if len(vectors) != count or len(told["data"]) != count:
        raise Failure(f"an answer has {len(told['data'])} embeddings, expected one for each of {count} texts")
    for n, vector in enumerate(vectors):
        if vector.ndim != 1 or not len(vector) or len(vector) != len(vectors[0]) or not np.isfinite(vector).all():
            raise Failure(f"embedding {n} of an answer has shape {vector.shape}, or numbers that are not finite")
    return vectors, usage


def _vector(told: Any) -> np.ndarray:
    return _unpacked(told) if isinstance(told, str) else np.array(told, np.float32)


def _packed(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
