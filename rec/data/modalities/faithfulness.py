"""Whether what a text says is supported by what it was written from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rec.data.modalities.rarity import AGAINST, Rarity
from rec.data.modalities.words import MOST_FORMS, WORD, Words, sentences

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


class Faithfulness(NamedTuple):
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
    names: int = 0
    lacking: list[str] = field(default_factory=list)
    """Names, then words, that no source has."""
    lacking_names: int = 0

    @property
    def score(self) -> float:
        return self.support / (self.support + self.against)


class Checker:
    """What compares texts with their sources; one per process."""

    def __init__(self, rarity: Rarity, entails: Entails | None = None, words: Words | None = None) -> None:
        self.rarity, self.entails, self.of = rarity, entails, words or Words()
        self.forms: dict[str, tuple[int, float, bool]] = {}
        """By form as it stands in a text: hash, evidence where sources have it, whether it may be a name."""
        self.names: dict[str, tuple[int, ...]] = {}
        """By name: the hashes that sources must have."""

    def check(self, texts: Sequence[str], sources: Sequence[str]) -> list[Faithfulness]:
        """Return the faithfulness of texts that were written from the same sources.

        A sentence is as faithful as the evidence of its words: each that sources have speaks for it, the more the rarer
        it is among sources of other items, and each that they lack against it, as much for all.
        """
        known, judged = self.known(sources), dict[str, _Sentence]()
        parts = [self._judged(text, known, judged) for text in texts]
        return [self._told(own, least) for own, least in zip(parts, self._entailed(parts, sources), strict=True)]

    def lacking(self, text: str, sources: Sequence[str]) -> bool:
        """Return whether a text has content words that no source has."""
        return not self.known([text]) <= self.known(sources)

    def known(self, sources: Sequence[str]) -> set[int]:
        """Return the words that sources have, with the decades of their years."""
        forms = set(WORD.findall("\n".join(sources)))
        forms |= {f"{form[:3]}0s" for form in forms if len(form) == 4 and YEAR.fullmatch(form)}
        return self.of.distinct(forms)

    def _judged(self, text: str, known: set[int], judged: dict[str, _Sentence]) -> list[_Sentence]:
        """Return a text's sentences; those that were judged before are not judged again."""
        found: list[_Sentence] = []
        for piece in sentences(text):
            one = judged.get(piece)
            if one is None:
                one = judged[piece] = self._sentence(piece, known)
            if found and min(one.words, found[-1].words) < LEAST_WORDS:
                found[-1] = _joined(found[-1], one)
            else:
                found.append(one)
        return found

    def _sentence(self, text: str, known: set[int]) -> _Sentence:
        one, forms, seen = _Sentence(text), WORD.findall(text), set[int]()
        for place, form in enumerate(forms):
            hashed, support, capital = self.forms.get(form) or self._form(form)
            if not hashed or hashed in seen:
                continue
            seen.add(hashed)
            one.words += 1
            one.weight += support
            if hashed in known:
                one.support += support
                one.supported += support
            else:
                one.lacking.append(form)
                one.against += AGAINST + (MADE_UP_NAME if capital and place else 0)
        names = _names(text, self.of, self.rarity.common)
        lacking = [name for name in names if not known.issuperset(self.names.get(name) or self._name(name))]
        one.names, one.lacking_names = len(names), len(lacking)
        one.lacking = lacking + one.lacking
        return one

    def _form(self, form: str) -> tuple[int, float, bool]:
        """Return what is known of a word, and keep it at hand."""
        if len(self.forms) >= MOST_FORMS:
            self.forms.clear()
        hashed = self.of.hash_of(form)
        found = self.forms[form] = (hashed, self.rarity.of(hashed), not form[0].islower())
        return found

    def _name(self, name: str) -> tuple[int, ...]:
        """Return the words of a name that are no common ones, all where all are, and keep them at hand."""
        if len(self.names) >= MOST_FORMS:
            self.names.clear()
        hashes = self.of.hashes(name)
        found = self.names[name] = tuple(h for h in hashes if h not in self.rarity.common) or tuple(hashes)
        return found

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

    def _told(self, parts: Sequence[_Sentence], least: float | None) -> Faithfulness:
        weight, names = sum(one.weight for one in parts), sum(one.names for one in parts)
        score = min((one.score for one in parts if one.words), default=1.0)
        return Faithfulness(
            words=sum(one.supported for one in parts) / weight if weight else 1.0,
            entities=1 - sum(one.lacking_names for one in parts) / names if names else 1.0,
            score=score if least is None else (score + least) / 2,
            unsupported=tuple(dict.fromkeys(form for one in parts for form in one.lacking)),
        )


def entities(text: str, common: frozenset[int] = frozenset()) -> list[str]:
    """Return the names, years and numbers of a text, each once: runs of words with capitals, and what has digits.

    The first word of a sentence is part of a name where it is not common: does not stand in lower case elsewhere.

    Args:
        text: Some sentences.
        common: Hashes of common words, such as those of `Rarity`.
    """
    words = Words()
    return list(dict.fromkeys(name for sentence in sentences(text) for name in _names(sentence, words, common)))


def _names(sentence: str, words: Words, common: frozenset[int]) -> list[str]:
    found: dict[str, None] = {}
    for match in NAME.finditer(sentence):
        name = match[0].rstrip(".,'\u2019-")
        if not sentence[: match.start()].strip("\"'([\u201c\u2018 "):
            first, _, rest = name.partition(" ")
            if all(h in common for h in words.hashes(first)):
                name = rest
        if any(map(words.hash_of, WORD.findall(name))):
            found[name] = None
    return list(found)


def _joined(one: _Sentence, more: _Sentence) -> _Sentence:
    """Return two sentences as one."""
    return _Sentence(
        f"{one.text} {more.text}",
        one.support + more.support - DOUBT,
        one.against + more.against - DOUBT,
        one.weight + more.weight,
        one.supported + more.supported,
        one.words + more.words,
        one.names + more.names,
        one.lacking + more.lacking,
        one.lacking_names + more.lacking_names,
    )
