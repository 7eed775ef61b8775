"""Writers of modalities: items in, texts out, with how each was made."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence

from rec.data.modalities.answers import Answers
from rec.data.modalities.budget import BudgetSpent
from rec.data.modalities.config import KeepingConfig
from rec.data.modalities.faithfulness import Faithfulness
from rec.data.modalities.flow import in_order, run_through
from rec.data.modalities.items import MASKED, TEMPLATE, Item, Written
from rec.data.modalities.judging import SupportJudge
from rec.data.modalities.language_model import Answer, Conversation, LanguageModel, Unanswered, question_key
from rec.data.modalities.prompts import Prompter, Unusable
from rec.data.modalities.template import Templates
from rec.errors import DataError
from rec.json_text import json_text

MOMENT_S = 0.02
"""So long an answer waits to be kept with others, at most; a killed command asks again what came in its last moment."""


class ModalityWriter(ABC):
    """Writes the modalities of items."""

    @abstractmethod
    def write(self, batches: Iterable[Sequence[Item]]) -> Generator[list[Written], None, None]:
        """Yield what is written of all items, in order, in lists of any length; batches are taken as they are needed.

        Raises:
            BudgetSpent: the next question would cost more than is left; what was answered is kept.
            DataError: the model answers nothing any more.
        """


class TemplateWriter(ModalityWriter):
    """Writes what is known of items by template."""

    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    def write(self, batches: Iterable[Sequence[Item]]) -> Generator[list[Written], None, None]:
        """Yield what is written of all items."""
        for batch in batches:
            yield [self.templates.written(item) for item in batch]


class ModelWriter(ModalityWriter):
    """Asks a language model about selected items, and takes the template for the others, and where it fails."""

    def __init__(
        self,
        model: LanguageModel,
        answers: Answers,
        prompter: Prompter,
        templates: Templates,
        judge: SupportJudge,
        faithfulness: KeepingConfig,
        *,
        kind: str,
        at_once: int,
        held: int,
    ) -> None:
        self.model, self.answers, self.prompter, self.templates = model, answers, prompter, templates
        self.judge, self.faithfulness, self.kind = judge, faithfulness, kind
        self.at_once, self.held = at_once, held
        identity = model.identity()
        self.name = str(identity["model"])
        self.identity = json_text(identity, sort_keys=True)
        self.cached = 0
        """Questions whose answer was there."""
        self.whole = 0
        """Items that are written."""
        self._asking: dict[bytes, asyncio.Future[Answer]] = {}
        self._spent: BudgetSpent | None = None

    def write(self, batches: Iterable[Sequence[Item]]) -> Generator[list[Written], None, None]:
        """Yield what is written of all items; the answers that it was written from are on disk."""

        def stream() -> AsyncGenerator[list[Written], None]:
            return in_order(batches, self._write, at_once=self.at_once, held=self.held)

        try:
            with contextlib.closing(run_through([self.model, self.judge], stream)) as written:
                for some in written:
                    self.answers.flush()
                    yield some
        finally:
            self.answers.flush()

    def key(self, conversation: Conversation) -> bytes:
        """Return the key of a question in the cache."""
        return question_key(self.identity, conversation)

    async def _write(self, item: Item) -> Written:
        if not item.selected:
            return self.templates.written(item)
        written = Written(item=item, texts={}, writers={}, model=self.name)
        try:
            await self._talk(written)
        except Unanswered as error:
            written.fault = written.fault or str(error)
        if not written.texts:
            written.texts = self.templates.texts(item)
            written.writers = dict.fromkeys(written.texts, TEMPLATE)
        self.whole += 1
        return written

    async def _talk(self, written: Written) -> None:
        """Ask about an item, again where an answer cannot be used, and again where it says too much."""
        conversation = self.prompter.first(written.item)
        answer = await self._ask(conversation, written)
        try:
            texts = self.prompter.read(answer)
        except Unusable as error:
            written.repaired = True
            conversation = self.prompter.repair(conversation, answer, str(error))
            answer = await self._ask(conversation, written)
            try:
                texts = self.prompter.read(answer)
            except Unusable as still:
                written.fault = f"an answer cannot be used, nor the one after it: {still}"
                return
        judged = await self._judged(texts, written.item)
        low = self._low(judged)
        if low and self.faithfulness.reflect:
            written.reflected = True
            texts, judged = await self._reflected(conversation, texts, judged, written)
        written.texts, written.faithfulness = texts, judged
        written.writers = dict.fromkeys(texts, self.kind)
        for name in self._low(judged) if self.faithfulness.then != "keep" else ():
            masked = self.faithfulness.then == "mask"
            written.texts[name] = "" if masked else self.templates.texts(written.item, [name])[name]
            written.writers[name] = MASKED if masked else TEMPLATE

    async def _reflected(
        self, conversation: Conversation, texts: dict[str, str], judged: dict[str, Faithfulness], written: Written
    ) -> tuple[dict[str, str], dict[str, Faithfulness]]:
        """Return texts and their scores after the model was told what nothing supports: of each the better one."""
        try:
            answer = await self._ask(self.prompter.reflect(conversation, texts, self._low(judged)), written)
            again = self.prompter.read(answer)
        except (Unusable, Unanswered):
            return texts, judged
        after = await self._judged(again, written.item)
        better = {name: after[name].score >= judged[name].score for name in texts}
        return (
            {name: again[name] if better[name] else texts[name] for name in texts},
            {name: after[name] if better[name] else judged[name] for name in texts},
        )

    async def _judged(self, texts: dict[str, str], item: Item) -> dict[str, Faithfulness]:
        return dict(zip(texts, await self.judge.judged(list(texts.values()), item.sources), strict=True))

    def _low(self, judged: dict[str, Faithfulness]) -> dict[str, Faithfulness]:
        least = {name: self.faithfulness.least(name) or 0.0 for name in judged}
        return {name: found for name, found in judged.items() if found.score < least[name]}

    async def _ask(self, conversation: Conversation, written: Written) -> Answer:
        """Return an answer, from the cache where it is there, and keep it where it is new."""
        key = self.key(conversation)
        answer = self.answers.get(key)
        if answer is None:
            answer = await self._asked(key, conversation)
        else:
            self.cached += 1
        written.input_tokens += answer.usage.input
        written.output_tokens += answer.usage.output
        return answer

    async def _asked(self, key: bytes, conversation: Conversation) -> Answer:
        if key in self._asking:  # another item of which the same is known
            return await asyncio.shield(self._asking[key])
        if self._spent is not None:
            raise self._spent
        future = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            answer = await self.model.answer(conversation)
        except asyncio.CancelledError:
            future.cancel()
            raise
        except Exception as error:
            if isinstance(error, BudgetSpent):
                self._spent = error
            future.set_exception(error)
            future.exception()  # nobody else may wait for it
            raise
        finally:
            del self._asking[key]
        future.set_result(answer)
        self._keep(key, answer)
        return answer

    def _keep(self, key: bytes, answer: Answer) -> None:
        """Keep an answer, in one step with all others of a moment."""
        if not self.answers.held:
            asyncio.get_running_loop().call_later(MOMENT_S, self._flush)
        self.answers.hold(key, answer)

    def _flush(self) -> None:
        with contextlib.suppress(DataError):  # what is held stays: the next flush tells
            self.answers.flush()
