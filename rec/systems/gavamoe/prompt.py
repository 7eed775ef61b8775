"""Prompts of GaVaMoE: what the language model is told of a pair before it writes, and what it is to write.

Letters: B examples, M moods, P tokens of the longest prompt, A tokens of the longest answer, L tokens of a beginning.
Source of the words: Tang et al. 2024 (arXiv 2410.11841), figure of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from rec.batch import Batch
from rec.nn.language.tokens import LanguageTokens
from rec.strict import Strict

SYSTEM = (
    "You are a professional explainer, Your assignment involves providing users with a detailed explanation regarding "
    "a specific item."
)
FEATURE = "\ue000"
"""A letter of nobody's language: where the feature goes."""
MOODS = ("negative", "positive")
POSITIVE = 3.0
"""The least rating of a positive mood."""
FEATURE_TOKENS = 32
"""Most tokens of a feature: those of data have one or two."""
HEADER, HEADER_END, TURN_END, BEGIN = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|begin_of_text|>"


class PairPromptConfig(Strict):
    """What a prompt tells of a pair."""

    feature: bool = True
    """Tells the feature that the text is about, which only who has read the text knows. The published setting."""
    rating: Literal["given", "predicted", "none"] = "given"
    """What the mood in the prompt follows from: the pair's rating, which only who has read the review knows (the
    published setting), the rating that the model predicts, or nothing: no mood is told."""
    words: Literal["paper", "short"] = "paper"
    """The published sentences, or the mood, the feature and the two tokens alone: a model that is trained from scratch
    needs no more, and is faster."""

    own_vectors: bool = True
    """Lets the writer learn vectors of users and items from texts, which are added to those of stage 1, as LoRA on its
    tables does in the published code; clusters stay what stage 1 says. Off, texts follow from what ratings tell of a
    pair alone."""

    @property
    def leaks(self) -> bool:
        """Whether a prompt holds what is known only from the review that is to be written."""
        return self.feature or self.rating == "given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt(Batch):
    """What the language model reads of some pairs, and what it is to write of them."""

    token_MBP: Tensor
    """int64, -1 before prompts that are shorter: by mood, negative and positive, where the model chooses, else one."""
    answer_BA: Tensor
    """int64, the end token behind each text, -1 where texts are shorter; of pairs without a text, the end alone."""
    common_L: Tensor
    """int64, what every prompt of the run begins with, whatever its pair: it is read once for many."""

    def __len__(self) -> int:
        return len(self.answer_BA)

    @property
    def read_BA(self) -> Tensor:
        """Return what is read of answers, (B, A - 1): all but the last token of each, after which nothing is asked."""
        length_B1 = (self.answer_BA >= 0).sum(1, keepdim=True)
        place_A = torch.arange(self.answer_BA.shape[1], device=self.answer_BA.device)
        return self.answer_BA.masked_fill(place_A >= length_B1 - 1, -1)[:, :-1]

    @property
    def chooses(self) -> bool:
        """Whether the mood follows from a predicted rating."""
        return len(self.token_MBP) > 1

    def of(self, rating_B: Tensor | None = None) -> Tensor:
        """Return the prompt of each pair, (B, P), by its predicted rating where the mood follows from one."""
        if not self.chooses:
            return self.token_MBP[0]
        assert rating_B is not None, "this prompt's mood follows from a predicted rating"
        return torch.where((rating_B >= POSITIVE)[:, None], self.token_MBP[1], self.token_MBP[0])


class PairPrompter:
    """Makes the prompts of a run."""

    def __init__(self, config: PairPromptConfig, tokens: LanguageTokens, max_tokens: int) -> None:
        self.config, self.tokens, self.max_tokens = config, tokens, max_tokens

    def prompt(self, ratings: Sequence[float], features: Sequence[str], texts: Sequence[str]) -> Prompt:
        """Return the prompts of pairs; what the config does not tell, and texts at all, may be anything."""
        if self.config.rating == "predicted":
            moods = [[mood] * len(texts) for mood in MOODS]
        elif self.config.rating == "given":
            moods = [[MOODS[bool(rating >= POSITIVE)] for rating in ratings]]
        else:
            moods = [[""] * len(texts)]
        told = list(features) if self.config.feature else [""] * len(texts)
        sides = [self._prompts(some, told) for some in moods]
        longest = max((len(tokens) for side in sides for tokens in side), default=0)
        return Prompt(
            token_MBP=torch.stack([_padded(side, longest, left=True) for side in sides]),
            answer_BA=_padded(self.tokens.answers(texts, self.max_tokens), 0),
            common_L=torch.tensor(self.common, dtype=torch.int64),
        )

    @cached_property
    def common(self) -> list[int]:
        """The tokens that every prompt begins with, those of system words among them."""
        moods = ("",) if self.config.rating == "none" else MOODS
        kinds = [self._parts(mood, feature) for mood in moods for feature in {False, self.config.feature}]
        tokens: list[int] = []
        for parts in zip(*kinds, strict=False):
            if len(set(parts)) > 1 or parts[0] in (FEATURE, self.tokens.user, self.tokens.item):
                break
            tokens += [parts[0]] if isinstance(parts[0], int) else self.tokens.encode([parts[0]])[0]
        return tokens

    def _prompts(self, moods: Sequence[str], features: Sequence[str]) -> list[list[int]]:
        """Return the tokens of prompts; words that come from data cannot spell a slot, a turn or an end."""
        known: dict[str, list[int]] = {}

        def encoded(text: str) -> list[int]:
            if text not in known:
                known[text] = self.tokens.encode([text])[0]
            return known[text]

        found = []
        for mood, feature in zip(moods, features, strict=True):
            tokens: list[int] = []
            for part in self._parts(mood, bool(feature)):
                if isinstance(part, int):
                    tokens.append(part)
                elif part == FEATURE:
                    tokens += encoded(f" {feature}")[:FEATURE_TOKENS]
                else:
                    tokens += encoded(part)
            found.append(tokens)
        return found

    def _parts(self, mood: str, feature: bool) -> list[str | int]:
        """Return a prompt as texts, numbers of tokens, and the place of the feature."""
        if self.config.words == "short":
            mooded = [f"{mood}:"] if mood else []
            featured = [FEATURE, ":"] if feature else []
            return [*mooded, *featured, self.tokens.user, self.tokens.item]
        told = [f"The user has a {mood} experience with the item, "] if mood else []
        told += ["the item has", FEATURE, " features, "] if feature else []
        user, item = self.tokens.user, self.tokens.item
        return self._in_turns([*told, "please provide an explanation for recommending ", item, " to ", user, "."])

    def _in_turns(self, words: list[str | int]) -> list[str | int]:
        """Return words between the headers that a chat model has learned; else on lines of their own."""
        marks = [self.tokens.special(name) for name in (HEADER, HEADER_END, TURN_END)]
        header, end, turn = marks
        if header is None or end is None or turn is None:
            return [f"{SYSTEM}\n", *words, "\n"]
        begin = self.tokens.special(BEGIN)

        def head(role: str) -> list[str | int]:
            return [header, role, end, "\n\n"]

        first: list[str | int] = [] if begin is None else [begin]
        return [*first, *head("system"), SYSTEM, turn, *head("user"), *words, turn, *head("assistant")]


def _padded(rows: Sequence[Sequence[int]], least: int, left: bool = False) -> Tensor:
    """Return rows of tokens as one tensor, -1 where they are shorter."""
    longest = max([least, *map(len, rows)])
    found = torch.full((len(rows), longest), -1)
    for number, row in enumerate(rows):
        if row:
            found[number, slice(longest - len(row), None) if left else slice(0, len(row))] = torch.tensor(row)
    return found
