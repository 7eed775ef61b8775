"""Writing the modalities of a catalogue: who is chosen, what it costs, what is written, batch by batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from rec.data.items import Items, evenly, facts_of
from rec.data.modalities.answers import Answers
from rec.data.modalities.batched import BatchedModel
from rec.data.modalities.budget import Budget, BudgetSpent, Prices
from rec.data.modalities.config import ModalitiesConfig, WriterConfig
from rec.data.modalities.cost import Estimate, estimate
from rec.data.modalities.counting import TokenCount
from rec.data.modalities.entailment import Entailment
from rec.data.modalities.faithfulness import Checker
from rec.data.modalities.items import Item, Written
from rec.data.modalities.judging import SupportJudge
from rec.data.modalities.language_model import LanguageModel
from rec.data.modalities.local import CausalModel
from rec.data.modalities.passages import Facts, Retrieved
from rec.data.modalities.prompts import Prompter
from rec.data.modalities.rarity import Rarity
from rec.data.modalities.select import selected, takes_all
from rec.data.modalities.template import Templates
from rec.data.modalities.words import Words
from rec.data.modalities.writers import ModalityWriter, ModelWriter, TemplateWriter
from rec.data.runner import Actors, Runner
from rec.data.sources.metadata import FIELDS
from rec.errors import ConfigError, DataError
from rec.filesystems import beside
from rec.progress import Progress
from rec.sections import counted

ESTIMATED = 10_000
"""Items that an estimate looks at, at most."""
LEARNED = 20_000
"""Items whose sources tell how rare words are, at most."""
VLLM_AT_ONCE = 16_384
"""Items that one job of vLLM answers, as its engines start anew with each."""
AHEAD = 8
"""Items that are worked on for each place of a server: some wait for their turn, some after a failure."""
MANY = 2000
"""Items whose texts are judged in a process of their own, at least: with fewer it would not pay its start."""
LEAST_HELD, HELD = 1024, 8
"""Items that are begun before the first of them is done, for each that is worked on."""
Say = Callable[[str], None]
Retrieve = Callable[[Sequence[Facts]], Sequence[Sequence[Retrieved]]]
"""What is found of some items elsewhere."""


class ModalityJob:
    """The texts of a catalogue's items, which are read as they are needed."""

    def __init__(
        self,
        config: ModalitiesConfig,
        items: Items,
        count_I: np.ndarray,
        names: Sequence[str],
        *,
        root: str,
        runner: Runner,
        say: Say,
        retrieve: Retrieve | None = None,
        show: bool = True,
    ) -> None:
        self.config, self.items, self.names, self.say = config, items, tuple(names), say
        self.retrieve, self.show, self.runner = retrieve, show, runner
        self.fields = tuple(dict.fromkeys((*FIELDS, *config.fields)))
        if unknown := [name for name in config.fields if name not in items.columns]:
            known = ", ".join(items.columns)
            raise ConfigError(f"data.modalities.fields: {unknown[0]!r} is no column of the items ({known})")
        self.templates = Templates(self.names, config.templates)
        self.prices = Prices(config.writer.input_price, config.writer.output_price)
        self.count_I = count_I
        self.cache = config.writer.cache or beside(root, "answers")

    @cached_property
    def selected_I(self) -> np.ndarray:
        """Which items a model writes of."""
        if not self.config.writer.asks:
            return np.zeros(len(self.items), bool)
        if takes_all(self.config.select):
            return np.ones(len(self.items), bool)
        every = range(len(self.items))
        parts = (every[start : start + self.config.batch] for start in range(0, len(every), self.config.batch))
        lengths = [sum(map(len, facts.values())) for part in parts for facts in self._facts(part)]
        characters_I = np.array(lengths, np.int64)
        return selected(self.count_I, characters_I, self.config.select)

    def _facts(self, places: Sequence[int]) -> list[dict[str, str]]:
        return facts_of(self.items.rows(places), self.fields)

    def batches(self, places: Sequence[int]) -> Iterator[list[Item]]:
        """Yield items, with what is found of those that a model writes of."""
        for start in range(0, len(places), self.config.batch):
            yield self._items(places[start : start + self.config.batch])

    def _items(self, places: Sequence[int]) -> list[Item]:
        facts, chosen = self._facts(places), self.selected_I[list(places)]
        found: list[Sequence[Retrieved]] = [()] * len(facts)
        asked = [number for number in range(len(facts)) if chosen[number] or self.config.quotes]
        if self.retrieve is not None and asked:
            for number, some in zip(asked, self.retrieve([facts[n] for n in asked]), strict=True):
                found[number] = some
        return [
            Item(place, fact, tuple(some), bool(yes), self.show)
            for place, fact, some, yes in zip(places, facts, found, chosen, strict=True)
        ]

    def sample(self, most: int = ESTIMATED) -> list[int]:
        """Return selected items, evenly from all of them where they are more."""
        found: list[int] = evenly(np.flatnonzero(self.selected_I), most).tolist()
        return found

    @cached_property
    def checker(self) -> Checker:
        """What compares texts with their sources; how rare words are it learns from the sources of some items."""
        keys, some, words = self.config.faithfulness, self.sample(LEARNED), Words()
        with Progress(f"modalities: learn how rare words are from {counted(len(some), 'item')}"):
            rarity = Rarity.learned((item.sources for batch in self.batches(some) for item in batch), words)
        entails = Entailment(keys.entailment, keys.entailment_tokens) if keys.entailment else None
        return Checker(rarity, entails, words)

    @cached_property
    def writer(self) -> ModalityWriter:
        """Who writes."""
        if not self.config.writer.asks:
            return TemplateWriter(self.templates)
        prompter = Prompter(self.config.prompt, self.names, self.fields)
        keys, asked = self.config.writer, int(self.selected_I.sum())
        at_once = VLLM_AT_ONCE
        if keys.kind != "vllm":
            at_once = AHEAD * (keys.concurrency if keys.kind == "chat" else keys.batch_size * keys.actors)
        return ModelWriter(
            self._model(keys, prompter.schema),
            Answers(self.cache),
            prompter,
            self.templates,
            SupportJudge(self.checker, apart=bool(self.config.faithfulness.entailment) or asked >= MANY),
            self.config.faithfulness,
            kind=keys.kind,
            at_once=at_once,
            held=max(LEAST_HELD, HELD * at_once),
        )

    def _model(self, keys: WriterConfig, schema: Mapping[str, Any]) -> LanguageModel:
        budget = Budget(keys.budget_tokens, keys.budget_money, self.prices)
        if keys.kind == "chat":
            try:
                from rec.data.modalities.chat import ChatModel
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"data.modalities.writer.kind: 'chat' needs the package {error.name}; install rec[chat]"
                ) from error
            return ChatModel(keys, budget, self.count, schema=schema)
        if keys.kind == "vllm":
            pool = self.runner.vllm_pool(keys)
            return BatchedModel(keys, lambda: pool, budget, self.count, batch_size=VLLM_AT_ONCE)
        actors = Actors(keys.actors, keys.cpus_per_actor, keys.gpus_per_actor)
        open_pool = partial(self.runner.pool, partial(CausalModel, keys), actors)
        return BatchedModel(keys, open_pool, budget, self.count, batch_size=keys.batch_size)

    @cached_property
    def count(self) -> TokenCount:
        """What counts the tokens of prompts."""
        return TokenCount(self.config.writer.tokenizer)

    def estimate(self, places: Sequence[int] | None = None) -> Estimate | None:
        """Return what is still to be asked of some items or all, and what that costs; None where no model writes."""
        if not isinstance(self.writer, ModelWriter):
            return None
        selected_P = self.selected_I if places is None else self.selected_I[list(places)]
        chosen = int(selected_P.sum())
        with Progress(f"modalities: count the tokens of questions about {counted(chosen, 'item')}"):
            return estimate(
                self.batches(self.sample() if places is None else places),
                self.writer,
                self.count,
                self.prices,
                items=len(selected_P),
                selected=chosen,
            )

    def write(self, places: Sequence[int] | None = None) -> Generator[list[Written], None, None]:
        """Yield what is written of some items or all, in order, after the cost of all was said.

        Raises:
            DataError: the budget is spent, or the model answers nothing any more; answers so far are kept.
        """
        if (found := self.estimate(places)) is not None:
            self.say(found.told(self.prices))
        places = range(len(self.items)) if places is None else places
        done, start_s = 0, time.monotonic()
        with (
            Progress("modalities: write texts of items", len(places)) as progress,
            contextlib.closing(self.writer.write(self.batches(places))) as every,
        ):
            try:
                for written in every:
                    done += len(written)
                    progress.show(done, self._pace(done / max(time.monotonic() - start_s, 1e-9)))
                    yield written
            except BudgetSpent as error:
                raise DataError(self._spent(str(error))) from error

    def _pace(self, speed: float) -> str:
        """Return how fast items are written, and at what cost."""
        text = f"{speed:,.3g} items/s"
        if isinstance(self.writer, ModelWriter):
            told = self.writer.model.told
            text += f", {told.usage.total:,} tokens"
            if self.prices != Prices():
                text += f", {self.prices.money(told.usage):.4g} spent"
            text += f", {counted(told.retries, 'retry', 'retries')}"
        return text

    def _spent(self, fault: str) -> str:
        assert isinstance(self.writer, ModelWriter), "templates cost nothing"
        return (
            f"{fault}; {self.writer.whole:,} of {counted(int(self.selected_I.sum()), 'item')} are written, and kept in "
            f"{self.cache}: the same command goes on with them and as much again, or raise the budget"
        )
