"""Writing the modalities of a catalogue: who is chosen, what it costs, what is written, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rec.data.items import facts_of
from rec.data.modalities.answers import Answers
from rec.data.modalities.batched import BatchedModel
from rec.data.modalities.budget import Budget, BudgetSpent, Prices
from rec.data.modalities.chat import ChatModel
from rec.data.modalities.cost import Estimate, estimate
from rec.data.modalities.counting import TokenCount
from rec.data.modalities.items import Item, Written
from rec.data.modalities.language_model import LanguageModel
from rec.data.modalities.local import CausalModel
from rec.data.modalities.passages import Facts, Retrieved
from rec.data.modalities.prompts import Prompter
from rec.data.modalities.select import selected
from rec.data.modalities.template import Templates
from rec.data.modalities.writers import Judge, ModalityWriter, ModelWriter, TemplateWriter
from rec.data.runner import Actors, Runner
from rec.data.sources.metadata import FIELDS
from rec.errors import ConfigError, DataError
from rec.keys_modalities import ModalitiesConfig, WriterConfig
from rec.progress import Progress
from rec.sections import counted

ESTIMATED = 10_000
"""Items that an estimate looks at, at most."""
VLLM_AT_ONCE = 16_384
"""Items that one job of vLLM answers, as its engines start anew with each."""
LEAST_AT_ONCE, AHEAD = 1024, 64
"""Items that are begun before the first of them is done: one that waits for long holds up no others."""
Say = Callable[[str], None]
Retrieve = Callable[[Sequence[Facts]], Sequence[Sequence[Retrieved]]]
"""What is found of some items elsewhere."""


class Job:
    """The texts of a catalogue's items, `frame` a row each with all that is known of it."""

    def __init__(
        self,
        config: ModalitiesConfig,
        frame: pd.DataFrame,
        count_I: np.ndarray,
        names: Sequence[str],
        *,
        root: str,
        runner: Runner,
        say: Say,
        judge: Judge | None = None,
        retrieve: Retrieve | None = None,
    ) -> None:
        self.config, self.frame, self.names, self.say = config, frame, tuple(names), say
        self.judge, self.retrieve, self.runner = judge, retrieve, runner
        self.fields = tuple(dict.fromkeys((*FIELDS, *config.fields)))
        if unknown := [name for name in config.fields if name not in frame]:
            known = ", ".join(str(name) for name in frame.columns)
            raise ConfigError(f"data.modalities.fields: {unknown[0]!r} is no column of the items ({known})")
        self.templates = Templates(self.names, config.templates)
        self.prices = Prices(config.writer.input_price, config.writer.output_price)
        self.count_I = count_I
        self.cache = config.writer.cache or str(Path(root).absolute().parent / "answers")

    @cached_property
    def selected_I(self) -> np.ndarray:
        """Which items a model writes of."""
        if not self.config.writer.asks:
            return np.zeros(len(self.frame), bool)
        lengths = [
            [sum(map(len, facts.values())) for facts in self._facts(start)]
            for start in range(0, len(self.frame), self.config.batch)
        ]
        characters_I = np.array([length for part in lengths for length in part], np.int64)
        return selected(self.count_I, characters_I, self.config.select)

    def _facts(self, start: int) -> list[dict[str, str]]:
        return facts_of(self.frame.iloc[start : start + self.config.batch], self.fields)

    def batches(self) -> Iterator[list[Item]]:
        """Yield all items, in order."""
        for start in range(0, len(self.frame), self.config.batch):
            yield self._items(range(start, min(start + self.config.batch, len(self.frame))), self._facts(start))

    def _items(self, places: Sequence[int], facts: Sequence[dict[str, str]]) -> list[Item]:
        chosen = self.selected_I[list(places)]
        found: list[Sequence[Retrieved]] = [()] * len(facts)
        asked = [number for number in range(len(facts)) if chosen[number]]
        if self.retrieve is not None and asked:
            for number, some in zip(asked, self.retrieve([facts[n] for n in asked]), strict=True):
                found[number] = some
        return [
            Item(place, fact, tuple(some), bool(yes))
            for place, fact, some, yes in zip(places, facts, found, chosen, strict=True)
        ]

    def _sample(self) -> Iterator[list[Item]]:
        """Yield selected items, evenly from all of them where they are many."""
        places = np.flatnonzero(self.selected_I)
        if len(places) > ESTIMATED:
            places = places[np.linspace(0, len(places) - 1, ESTIMATED).astype(int)]
        for start in range(0, len(places), self.config.batch):
            some = places[start : start + self.config.batch]
            yield self._items(some.tolist(), facts_of(self.frame.iloc[some], self.fields))

    @cached_property
    def writer(self) -> ModalityWriter:
        """Who writes."""
        if not self.config.writer.asks:
            return TemplateWriter(self.templates)
        prompter = Prompter(self.config.prompt, self.names, self.fields)
        keys, at_once = self.config.writer, VLLM_AT_ONCE
        if keys.kind != "vllm":
            busy = keys.concurrency if keys.kind == "chat" else keys.batch_size * keys.actors
            at_once = max(LEAST_AT_ONCE, AHEAD * busy)
        return ModelWriter(
            self._model(keys, prompter.schema), Answers(self.cache), prompter, self.templates, self.judge,
            self.config.faithfulness, kind=keys.kind, at_once=at_once,
        )  # fmt: skip

    def _model(self, keys: WriterConfig, schema: Mapping[str, Any]) -> LanguageModel:
        budget = Budget(keys.budget_tokens, keys.budget_money, self.prices)
        if keys.kind == "chat":
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

    def estimate(self) -> Estimate | None:
        """Return what is still to be asked and what that costs; None where no model writes."""
        if not isinstance(self.writer, ModelWriter):
            return None
        chosen = int(self.selected_I.sum())
        with Progress(f"modalities: count the tokens of questions about {counted(chosen, 'item')}"):
            return estimate(
                self._sample(), self.writer, self.count, self.prices, items=len(self.frame), selected=chosen
            )

    def write(self) -> Iterator[list[Written]]:
        """Yield what is written of all items, in order, after the cost was said.

        Raises:
            DataError: the budget is spent, or the model answers nothing any more; answers so far are kept.
        """
        if (found := self.estimate()) is not None:
            self.say(found.told(self.prices))
        done, start_s = 0, time.monotonic()
        with Progress("modalities: write texts of items", len(self.frame)) as progress:
            try:
                for written in self.writer.write(self.batches()):
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
