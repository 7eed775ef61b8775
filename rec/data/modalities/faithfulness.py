"""Whether what a text says is supported by what it was written from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rec.data.modalities.rarity import Rarity
from rec.data.modalities.words import WORD, Words, sentences

DOUBT = 1.0
"""Evidence for and against that every sentence starts with: single words decide nothing."""
MADE_UP_NAME = 2.0
"""Further evidence against a sentence for each name, year or number that no source has."""
LEAST_WORDS = 3
"""A sentence of fewer content words is judged together with its neighbour."""
CAPITALISED = r"[^\W\d_a-z][^\s,;:!?()\"]*"
NAME = re.compile(rf"{CAPITALISED}(?: (?:of |the |de |la |van |von )*{CAPITALISED})*|\d[\d.,]*s?")
YEAR = re.compile(r"1[89]\d\d|20\d\d")
Entails = Callable[[Sequence[tuple[str, str]]], list[float]]
"""Returns, per pair of sources and sentence, the probability that the first entails the second."""


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """How far sources support a text; shares lie in [0, 1], and what has nothing to be supported is supported."""

    words: float
    """Share of its content words, rare ones weighing more."""
    entities: float
    """Share of its names, years and numbers."""
    score: float
    """Of its least supported sentence, in one number, with that of the language-inference model where one is asked;
    what thresholds are for."""
    unsupported: tuple[str, ...] = ()
    """Words and names of no source, as they stand in the text."""


@dataclass(slots=True)
class _Sentence:
    """What sources say to a sentence."""

    text: str
    support: float = DOUBT
    against: float = DOUBT
    weight: float = 0.0
    supported: float = 0.0
    words: int = 0

    @property
    def score(self) -> float:
        return self.support / (self.support + self.against)


class Checker:
    """What compares texts with their sources; one per process."""

    def __init__(self, rarity: Rarity, entails: Entails | None = None) -> None:
        self.rarity, self.entails, self.of = rarity, entails, Words()
        self.weights: dict[int, tuple[float, float]] = {}

    def check(self, texts: Sequence[str], sources: Sequence[str]) -> list[Faithfulness]:
        """Return the faithfulness of texts that were written from the same sources.

        A sentence is as faithful as the evidence of its words: each that sources have speaks for it, the more the rarer
        it is among sources of other items, and each that they lack against it.
        """
        known = self.known(sources)
        judged = [self._judged(text, known) for text in texts]
        entailed = self._entailed(judged, sources)
        return [
            self._told(text, parts, known, least) for text, parts, least in zip(texts, judged, entailed, strict=True)
        ]

    def lacking(self, text: str, sources: Sequence[str]) -> bool:
        """Return whether a text has content words that no source has."""
        return not self.known([text]) <= self.known(sources)

    def known(self, sources: Sequence[str]) -> set[int]:
        """Return the words that sources have, with the decades of their years."""
        forms = {form for source in sources for form in WORD.findall(source)}
        forms |= {f"{form[:3]}0s" for form in forms if YEAR.fullmatch(form)}
        return {hashed for hashed in map(self.of.hash_of, forms) if hashed}

    def _judged(self, text: str, known: set[int]) -> list[_Sentence]:
        found: list[_Sentence] = []
        for piece in sentences(text):
            one = self._sentence(piece, known)
            if found and min(one.words, found[-1].words) < LEAST_WORDS:
                _join(found[-1], one)
            else:
                found.append(one)
        return found

    def _sentence(self, text: str, known: set[int]) -> _Sentence:
        one, seen = _Sentence(text), set[int]()
        for place, form in enumerate(WORD.findall(text)):
            hashed = self.of.hash_of(form)
            if not hashed or hashed in seen:
                continue
            seen.add(hashed)
            weights = self.weights.get(hashed)
            if weights is None:
                weights = self.weights[hashed] = self.rarity.of(hashed)
            one.words += 1
            one.weight += weights[0]
            if hashed in known:
                one.support += weights[0]
                one.supported += weights[0]
            else:
                one.against += weights[1]
                if place and not form[0].islower():
                    one.against += MADE_UP_NAME
        return one

    def _entailed(self, judged: Sequence[Sequence[_Sentence]], sources: Sequence[str]) -> list[float | None]:
        """Return the probability of each text's least entailed sentence."""
        if self.entails is None:
            return [None] * len(judged)
        premise = " ".join(source for source in sources if source)
        flat = self.entails([(premise, one.text) for parts in judged for one in parts])
        found: list[float | None] = []
        for parts in judged:
            own, flat = flat[: len(parts)], flat[len(parts) :]
            found.append(min(own, default=1.0))
        return found

    def _told(self, text: str, parts: Sequence[_Sentence], known: set[int], least: float | None) -> Faithfulness:
        weight, supported = sum(one.weight for one in parts), sum(one.supported for one in parts)
        names = entities(text, self.of, self.rarity.common)
        lacking = [name for name in names if not self._has(name, known)]
        score = min((one.score for one in parts if one.words), default=1.0)
        words = [form for form in WORD.findall(text) if (h := self.of.hash_of(form)) and h not in known]
        return Faithfulness(
            words=supported / weight if weight else 1.0,
            entities=1 - len(lacking) / len(names) if names else 1.0,
            score=score if least is None else (score + least) / 2,
            unsupported=tuple(dict.fromkeys([*lacking, *words])),
        )

    def _has(self, name: str, known: set[int]) -> bool:
        """Return whether sources have all words of a name that are no common ones."""
        hashes = self.of.hashes(name)
        own = [h for h in hashes if h not in self.rarity.common] or hashes
        return all(h in known for h in own)


def entities(text: str, words: Words, common: frozenset[int] = frozenset()) -> list[str]:
    """Return the names, years and numbers of a text, each once: runs of words with capitals, and what has digits.

    The first word of a sentence is a name where more follow, or where it is not common: does not stand in lower case
    elsewhere.
    """
    found: dict[str, None] = {}
    for sentence in sentences(text):
        for match in NAME.finditer(sentence):
            name = match[0].rstrip(".,'\u2019-")
            hashes = words.hashes(name)
            at_start = not sentence[: match.start()].strip("\"'([\u201c\u2018 ")
            first, _, rest = name.partition(" ")
            if at_start and rest and all(h in common for h in words.hashes(first)):
                name, hashes = rest, words.hashes(rest)
            elif at_start and all(h in common for h in hashes):
                continue
            if hashes:
                found[name] = None
    return list(found)


def _join(one: _Sentence, more: _Sentence) -> None:
    one.text = f"{one.text} {more.text}"
    one.support += more.support - DOUBT
    one.against += more.against - DOUBT
    one.weight += more.weight
    one.supported += more.supported
    one.words += more.words
