"""What a review is about and what it says of it: candidates by rules, and the choice among them.

A finder names candidates; which of them stands for the review is decided here, the same for all: the first sentence
that has a feature which is named often enough in the whole set, and in it the feature that is named most often.

Letters: C candidates, R reviews.
"""

from __future__ import annotations

import html
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rec.data.reviews import lexicon
from rec.strict import Strict

SENTENCE = re.compile(r"(?<=[.!?])\s*|\s*;\s*|\s*[\r\n]+\s*")
TOKEN = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?|[0-9]+|[.,!?():]")
SHORTEST_FEATURE = 3
FARTHEST_NEGATION = 3
"""Tokens before an opinion in which a negation turns it round."""
MOST_BETWEEN = 3
"""Words between the verb and the opinion."""


class FindConfig(Strict):
    """How features and opinions are found (`[data.read.find]`)."""

    finder: str = "rec.data.reviews.finder:RuleFinder"
    """Import path of a class below `Finder`."""
    minimum_feature_count: int = 5
    """Features that are named less often in the whole set are none."""
    minimum_tokens: int = 4
    """Sentences with fewer tokens, signs included, are passed over ..."""
    maximum_tokens: int = 25
    """... and those with more."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A feature that a sentence names, and what it says of it."""

    sentence: str
    """Lower case, tokens divided by one blank."""
    feature: str
    opinion: str
    score: int
    """1 for praise, -1 for blame."""


class Finder(ABC):
    """Names the features and opinions of a text; an outside module's class works like ours."""

    def __init__(self, config: FindConfig) -> None:
        self.config = config

    @abstractmethod
    def candidates(self, text: str) -> Sequence[Candidate]:
        """Return what a text names, sentence by sentence; called in the processes that read reviews."""


class RuleFinder(Finder):
    """Finds an opinion word beside a word ("clear sound"), or behind it and a verb ("the sound is not very clear")."""

    def __init__(self, config: FindConfig) -> None:
        super().__init__(config)
        self.score = {**dict.fromkeys(lexicon.NEGATIVE, -1), **dict.fromkeys(lexicon.POSITIVE, 1)}

    def candidates(self, text: str) -> Sequence[Candidate]:
        """Return what a text names, in the order of sentences and, within one, of opinions."""
        found: list[Candidate] = []
        for tokens in self.sentences(text):
            if self.score.keys().isdisjoint(tokens):
                continue
            pairs = list(self._pairs(tokens))
            if pairs:
                sentence = " ".join(tokens)
                found += [Candidate(sentence, feature, tokens[at], self._score(tokens, at)) for feature, at in pairs]
        return found

    def sentences(self, text: str) -> Iterator[list[str]]:
        """Yield the tokens of each sentence that is neither too short nor too long."""
        least, most = self.config.minimum_tokens, self.config.maximum_tokens
        for part in SENTENCE.split(html.unescape(text).lower().replace("\u2019", "'")):
            tokens = TOKEN.findall(part)
            if least <= len(tokens) <= most:
                yield tokens

    def _pairs(self, tokens: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Yield each feature and the place of the opinion about it."""
        for at, token in enumerate(tokens):
            if token not in self.score:
                continue
            if at + 1 < len(tokens) and self._is_feature(tokens[at + 1]):
                yield tokens[at + 1], at
            before = at - 1
            while before > 0 and at - 1 - before < MOST_BETWEEN and tokens[before] in lexicon.BETWEEN:
                before -= 1
            if before > 0 and tokens[before] in lexicon.LINKS and self._is_feature(tokens[before - 1]):
                yield tokens[before - 1], at

    def _is_feature(self, word: str) -> bool:
        return (
            len(word) >= SHORTEST_FEATURE
            and word.isalpha()
            and word not in self.score
            and word not in lexicon.NO_FEATURES
            and word not in lexicon.BETWEEN
        )

    def _score(self, tokens: Sequence[str], at: int) -> int:
        negated = any(token in lexicon.NEGATIONS for token in tokens[max(0, at - FARTHEST_NEGATION) : at])
        return -self.score[tokens[at]] if negated else self.score[tokens[at]]


def chosen(review_C: np.ndarray, sentence_C: np.ndarray, count_C: np.ndarray, least: int) -> np.ndarray:
    """Return the candidate of each review that has one, (R,), by review.

    Args:
        review_C: The review of each candidate.
        sentence_C: The place of its sentence in the review.
        count_C: How often its feature is named in the whole set.
        least: Features that are named less often are none.
    """
    good = np.flatnonzero(count_C >= least)
    order = good[np.lexsort((good, -count_C[good], sentence_C[good], review_C[good]))]
    review = review_C[order]
    return np.asarray(order[np.flatnonzero(np.append(True, review[1:] != review[:-1])[: len(review)])])
