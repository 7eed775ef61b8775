"""Writing: decoding beside the bare forward passes of the model, and training of gated experts beside a dense twin.

Models have the keys' usual sizes and their first weights; sentences and prompts are those of generated reviews.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import Times, cpu_s, in_turns
from rec.benchmarks.work import Say
from rec.data.encoders import learn_byte_tokenizer
from rec.data.generated.reviews import PlantedReviewsConfig, shard_tables
from rec.nn.decoding import Decoding, decode
from rec.nn.language.config import LanguageConfig
from rec.nn.language.gated import GatedConfig, expert_width
from rec.nn.language.tokens import LanguageTokens
from rec.systems.gavamoe.prompt import PairPromptConfig, PairPrompter, Prompt
from rec.systems.gavamoe.writer import Pairs, PairWriter
from rec.train.memory import keep_freed_memory

BATCH, TOKENS, REPEATS = 32, 30, 7
"""Pairs of a batch, tokens that are written of each, rounds."""
CLUSTERS, FEATURES, VOCABULARY, REVIEWS = 8, 64, 2000, 2000
SIZES: Mapping[str, dict[str, int]] = {
    "width 128, 2 layers": {},
    "width 256, 2 layers": {"width": 256, "hidden": 1024},
}
EXPERTS: Mapping[str, dict[str, int]] = {
    "4 experts, 2 per token": {"experts": 4, "per_row": 2},
    "16 fine experts, 4 per token": {"experts": 4, "fine": 4, "per_row": 4},
}
DECODING_GOAL, TRAINING_GOAL = 1 / 0.8, 1 / 0.7
NEVER = -1
"""An end that no token is."""


def measure(say: Say) -> list[Row]:
    """Return every measurement."""
    keep_freed_memory()
    torch.set_num_threads(1)
    sentences = Sentences()
    found: list[Row] = []
    for size, keys in SIZES.items():
        for experts, gated in EXPERTS.items():
            name = f"{size}, {experts}"
            say(f"decoding, {name}")
            found += decoding(name, sentences, sentences.writer(keys, gated).eval())
        for experts, gated in EXPERTS.items():
            say(f"training, {size}, {experts}")
            found += training(f"{size}, {experts}", sentences, keys, gated)
    return found


class Sentences:
    """Generated reviews of a batch, as prompts and what is told of the pairs."""

    def __init__(self) -> None:
        config = PlantedReviewsConfig(reviews=REVIEWS, clusters=CLUSTERS, shards=1)
        (table,) = shard_tables(config, 0).values()
        self.columns: dict[str, list[Any]] = {name: table[name].to_pylist() for name in ("rating", "feature", "text")}
        self.tokens = LanguageTokens(learn_byte_tokenizer(self.columns["text"], VOCABULARY))

    @cached_property
    def prompt(self) -> Prompt:
        """The prompts and answers of a batch."""
        ratings, features, texts = (values[:BATCH] for values in self.columns.values())
        return PairPrompter(PairPromptConfig(), self.tokens, 2 * TOKENS).prompt(ratings, features, texts)

    @cached_property
    def pairs(self) -> Pairs:
        """What else is told of them."""
        chance = torch.Generator().manual_seed(0)
        user_BF, item_BF = (torch.randn(BATCH, FEATURES, generator=chance) for _ in range(2))
        return Pairs(user_BF=user_BF, item_BF=item_BF, cluster_B=torch.arange(BATCH) % CLUSTERS)

    def writer(self, language: Mapping[str, Any], experts: Mapping[str, Any]) -> PairWriter:
        """Return a model of a size."""
        return PairWriter(
            LanguageConfig(**language),
            GatedConfig(**experts),
            clusters=CLUSTERS,
            features=FEATURES,
            tokens=self.tokens,
        )


def decoding(name: str, sentences: Sentences, model: PairWriter) -> list[Row]:
    """Return what it takes to write texts that do not end, beside the forward passes alone; and texts that do."""
    asked = (sentences.prompt, sentences.pairs)
    names, how = [str(row) for row in range(BATCH)], Decoding(max_tokens=TOKENS)

    def ours() -> list[list[int]]:
        return decode(model, asked, how, names=names, end=NEVER)

    bare = passes(model, sentences.pairs, ours)
    told = f"{TOKENS} tokens of {BATCH} texts, {name}"
    (times, limits), (busy, limit_busy) = both_clocks(ours, bare)
    # Ends come one after the other, from the first token to the last.
    ends = torch.linspace(1, TOKENS, BATCH).long()
    leave, stay = (
        lambda: decode(Ending(model, ends), asked, how, names=names, end=0),
        lambda: decode(Ending(model, ends), asked, how, names=names, end=0, stays=True),
    )
    left, limit_left = both_clocks(leave, stay)[1]
    return [
        timed(f"decoding {told}, limit: bare forward passes", times, limits, DECODING_GOAL, physical=True),
        timed(f"decoding {told}, CPU time, limit: bare passes", busy, limit_busy, DECODING_GOAL, physical=True),
        rate(f"decoding, {name}, limit: bare passes", BATCH * TOKENS, times, limits),
        timed(f"decoding texts of 1 to {TOKENS} tokens, {name}, CPU time, limit: all stay", left, limit_left),
    ]


def passes(model: PairWriter, pairs: Pairs, action: Callable[[], Any]) -> Callable[[], None]:
    """Return an action that makes the forward passes of another one again, with a cache of their own, and scores.

    The action writes texts of `pairs`, by gates of their clusters.
    """
    from transformers import DynamicCache

    decoder, head = model.language.get_decoder(), model.language.get_output_embeddings()
    calls: list[tuple[Any, Any, dict[str, Any]]] = []
    scored: set[int] = set()

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        context = model.context
        told = {name: value for name, value in given.items() if name != "past_key_values"}
        calls.append((context.kept_BT, context.hint_N, told))

    hooks = [
        decoder.register_forward_pre_hook(note, with_kwargs=True),
        head.register_forward_pre_hook(lambda _, __: scored.add(len(calls) - 1)),
    ]
    action()
    for hook in hooks:
        hook.remove()

    @torch.no_grad()
    def made() -> None:
        cache, rows = DynamicCache(), len(calls[0][0])
        for number, (kept_BT, hint_N, told) in enumerate(calls):
            if len(kept_BT) > rows:  # the common beginning was read once for each gate
                cache.batch_select_indices(model.gates(pairs.cluster_B)[1])
            rows = len(kept_BT)
            model.context.start(kept_BT, hint_N)
            state_BTD = decoder(**told, past_key_values=cache).last_hidden_state
            if number in scored:
                head(state_BTD[:, -1])

    return made


@dataclass
class Ended:
    """What a model holds, and how many tokens each row has left."""

    state: Any
    left_R: Tensor

    def reorder(self, row_R: Tensor) -> None:
        """Hold these rows."""
        self.state.reorder(row_R)
        self.left_R = self.left_R[row_R]


class Ending:
    """A model of which each text ends after a given number of tokens, by token 0."""

    def __init__(self, model: PairWriter, length_B: Tensor) -> None:
        self.model, self.length_B = model, length_B

    def start(self, batch: tuple[Prompt, Pairs]) -> tuple[Tensor, Ended]:
        """Return the first scores."""
        score_BW, state = self.model.start(batch)
        return self._scores(score_BW, Ended(state, self.length_B))

    def step(self, token_R: Tensor, state: Ended) -> tuple[Tensor, Ended]:
        """Return the next scores."""
        score_RW, _ = self.model.step(token_R, state.state)
        state.left_R = state.left_R - 1
        return self._scores(score_RW, state)

    def _scores(self, score_RW: Tensor, state: Ended) -> tuple[Tensor, Ended]:
        score_RW[:, 0] = torch.where(state.left_R > 1, -torch.inf, torch.inf)
        return score_RW, state


def training(name: str, sentences: Sentences, keys: Mapping[str, Any], experts: Mapping[str, Any]) -> list[Row]:
    """Return the time of an optimiser step beside that of a dense network as wide as what a token's experts are."""
    hidden = LanguageConfig(**keys).hidden
    active = experts["per_row"] * expert_width(hidden, experts.get("fine", 1))
    mixture = steps(sentences, sentences.writer(keys, experts))
    dense = steps(sentences, sentences.writer({**keys, "hidden": active}, {"experts": 0}))
    (times, limits), (busy, limit_busy) = both_clocks(mixture, dense)
    prompt = sentences.prompt
    tokens = int((prompt.of() >= 0).sum() + (prompt.answer_BA >= 0).sum()) - len(prompt)
    told = f"step of {BATCH} pairs, {name}"
    return [
        timed(f"{told}, limit: dense of the active width", times, limits, TRAINING_GOAL),
        timed(f"{told}, CPU time, limit: dense of the active width", busy, limit_busy, TRAINING_GOAL),
        rate(f"training, {name}, limit: dense of the active width", tokens, times, limits),
    ]


def steps(sentences: Sentences, model: PairWriter) -> Callable[[], None]:
    """Return an optimiser step of a model on a batch."""
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    prompt, pairs = sentences.prompt, sentences.pairs
    model.train()

    def action() -> None:
        term = model.terms(model(prompt, pairs.user_BF, pairs.item_BF, pairs.cluster_B))["text_nll"]
        (term.sum / term.count).backward()
        optimiser.step()
        optimiser.zero_grad()

    return action


def both_clocks(a: Callable[[], Any], b: Callable[[], Any]) -> tuple[list[Times], list[Times]]:
    """Return the times of two actions in the same turns, by the clock on the wall and by the processor's."""
    busy: tuple[list[float], list[float]] = [], []

    def clock(action: Callable[[], Any]) -> float:
        start = time.perf_counter()
        busy[action is b].append(cpu_s(action))
        return time.perf_counter() - start

    times = in_turns([a, b], REPEATS, clock=clock)
    return times, [Times(rounds=tuple(rounds[1:])) for rounds in busy]


def rate(name: str, tokens: int, times: Times, limits: Times) -> Row:
    """Return the row of tokens per second."""
    return Row(name, tokens / times.median, "tokens/s", tokens / limits.median)
