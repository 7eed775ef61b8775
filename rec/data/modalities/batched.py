"""Models on this machine or cluster, which answer many conversations at a time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from rec.data.modalities.budget import Budget
from rec.data.modalities.config import WriterConfig
from rec.data.modalities.counting import TokenCount
from rec.data.modalities.flow import settle
from rec.data.modalities.language_model import Answer, Conversation, LanguageModel, TokenUsage
from rec.data.runner import Pool

HASHED = 1 << 20
"""Bytes at the start of each file of a model that tell it from others; all of them would take minutes."""


class _Asked(NamedTuple):
    """A conversation that waits for a place in a batch."""

    conversation: Conversation
    answer: asyncio.Future[Answer]


class BatchedModel(LanguageModel):
    """Gathers what is asked at the same time into batches, one on its way for each worker of a pool."""

    def __init__(
        self, config: WriterConfig, open_pool: Callable[[], Pool], budget: Budget, count: TokenCount, *, batch_size: int
    ) -> None:
        super().__init__()
        self.config, self.open_pool, self.budget, self.count = config, open_pool, budget, count
        self.batch_size = batch_size

    def identity(self) -> Mapping[str, Any]:
        """Return the model, by its files where it is a folder, and its parameters."""
        config = self.config
        told = {"model": config.model, "temperature": config.temperature, "max_tokens": config.max_tokens}
        if config.temperature:
            told["seed"] = config.seed
        if Path(config.model).is_dir():
            told["model"] = f"{Path(config.model).name} {_hash_of(Path(config.model))}"
        return told

    async def __aenter__(self) -> Self:
        self.pool = self.open_pool()
        self.waiting: asyncio.Queue[_Asked] = asyncio.Queue()
        self.workers = [asyncio.ensure_future(self._work(number)) for number in range(self.pool.size)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.cancel()
        self.pool.close()

    async def answer(self, conversation: Conversation) -> Answer:
        """Return the model's answer.

        Raises:
            BudgetSpent: it would use more than is left.
            ConfigError: the model does not load.
        """
        async with self.budget.reserve(TokenUsage(self.count.of(conversation), self.config.max_tokens)) as bill:
            asked = _Asked(conversation, asyncio.get_running_loop().create_future())
            self.waiting.put_nowait(asked)
            found = await asked.answer
            bill.usage = found.usage
            self.told.requests += 1
            self.told.usage += found.usage
            return found

    async def _work(self, number: int) -> None:
        """Keep one worker busy."""
        while True:
            batch = [await self.waiting.get()]
            while len(batch) < self.batch_size and not self.waiting.empty():
                batch.append(self.waiting.get_nowait())
            await settle([asked.answer for asked in batch], self._answers(number, batch))

    async def _answers(self, number: int, batch: Sequence[_Asked]) -> Sequence[Answer]:
        conversations = [asked.conversation for asked in batch]
        found: Sequence[Answer] = await asyncio.wrap_future(self.pool.submit(number, conversations))
        return found


def _hash_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name} {path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(HASHED))
    return digest.hexdigest()[:16]
