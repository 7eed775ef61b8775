"""Factuality: what a text states of an item, and how much of that the item's training reviews state too.

A text states the features and opinions of the data set that it names: "great sound but a poor strap" states great,
sound, poor and strap. An opinion is said of the nearest feature, of two at one distance of the later: here of (sound,
great) and (strap, poor). Reviews are read in the same way; what they are labelled with counts as well. So a statement
is supported where a training review of the item names the same feature or opinion, whatever else that review says;
`factual_pairs` asks for the opinion about the feature.

Letters: N texts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

METRICS: Mapping[str, bool] = {
    "factual": True,
    "hallucinated": False,
    "factual_coverage": True,
    "factual_pairs": True,
    "stating": True,
}
"""Every metric, and whether higher is better."""
Statement = tuple[str, str]
"""Kind (feature or opinion) and name."""
Pair = tuple[str, str]
"""Feature, and the opinion about it."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a text states."""

    statements: frozenset[Statement]
    pairs: frozenset[Pair]


@dataclass(slots=True)
class Evidence:
    """What all training reviews of an item state."""

    statements: set[Statement] = field(default_factory=set)
    pairs: set[Pair] = field(default_factory=set)


class FactReader:
    """Finds the features and opinions of a data set in texts; names of several words are found as such."""

    def __init__(self, features: Collection[str], opinions: Collection[str]) -> None:
        self.names: dict[str, list[tuple[tuple[str, ...], Statement]]] = {}
        """By their first word, the words of names and what they stand for."""
        self.counts: dict[str, int] = {"feature": len(set(features)), "opinion": len(set(opinions))}
        for kind, names in (("feature", features), ("opinion", opinions)):
            for name in sorted(set(names)):
                if words := tuple(name.split()):
                    self.names.setdefault(words[0], []).append((words, (kind, name)))

    def read(self, text: str) -> Stated:
        """Return what a text states; words are what stands between white space."""
        words = text.split()
        found: dict[str, list[tuple[int, str]]] = {"feature": [], "opinion": []}
        for place, word in enumerate(words):
            for name, (kind, whole) in self.names.get(word, ()):
                if len(name) == 1 or tuple(words[place : place + len(name)]) == name:
                    found[kind].append((place, whole))
        statements = frozenset((kind, name) for kind, places in found.items() for _, name in places)
        return Stated(statements, frozenset(_pairs(found["feature"], found["opinion"])))


def _pairs(features: Sequence[tuple[int, str]], opinions: Sequence[tuple[int, str]]) -> Iterable[Pair]:
    for place, opinion in opinions:
        others = [(abs(at - place), -at, name) for at, name in features if at != place]
        if others:
            yield min(others)[2], opinion


class Support:
    """What the training reviews of each item state."""

    def __init__(self, reader: FactReader) -> None:
        self.reader = reader
        self.evidence: dict[int, Evidence] = {}

    def add(
        self, item: Sequence[int], texts: Sequence[str], features: Sequence[str] | None, opinions: Sequence[str] | None
    ) -> None:
        """Take in some training reviews, with what they are labelled with where that is known; item -1 is unknown."""
        for place, (member, text) in enumerate(zip(item, texts, strict=True)):
            if member < 0:
                continue
            stated, evidence = self.reader.read(text), self.evidence.setdefault(member, Evidence())
            evidence.statements |= stated.statements
            evidence.pairs |= stated.pairs
            feature = features[place] if features is not None else ""
            opinion = opinions[place] if opinions is not None else ""
            evidence.statements |= {(k, n) for k, n in (("feature", feature), ("opinion", opinion)) if n}
            if feature and opinion:
                evidence.pairs.add((feature, opinion))

    def unsupported(self, item: int, text: str) -> list[str]:
        """Return the names of what a text states without support, in the order of letters; of an unknown item none."""
        if item not in self.evidence:
            return []
        return sorted({name for _, name in self.reader.read(text).statements - self.evidence[item].statements})

    def measure(self, item: Sequence[int], texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return every metric of each text, float64 (N,), NaN where it is not defined.

        factual            share of a text's statements that its item's training reviews support; of texts that state
                           something, about items with training reviews
        hallucinated       1 - factual
        factual_coverage   share of all that the item's training reviews state which the text states, too
        factual_pairs      share of a text's pairs of feature and opinion that a training review of the item holds
        stating            whether a text states anything

        Reviews of an item state sound, price, great and poor, of which (sound, great) and (price, poor) belong
        together. "great price and strap" states great, price and strap: factual 2/3, factual_coverage 2/4,
        factual_pairs 0 as nobody calls its price great.
        """
        found: dict[str, list[float]] = {name: [] for name in METRICS}
        for member, text in zip(item, texts, strict=True):
            stated, evidence = self.reader.read(text), self.evidence.get(member)
            good = len(stated.statements & evidence.statements) if evidence else 0
            factual = _share(good, stated.statements) if evidence else np.nan
            found["factual"].append(factual)
            found["hallucinated"].append(1 - factual)
            found["factual_coverage"].append(_share(good, evidence.statements) if evidence else np.nan)
            pairs = len(stated.pairs & evidence.pairs) if evidence else 0
            found["factual_pairs"].append(_share(pairs, stated.pairs) if evidence else np.nan)
            found["stating"].append(float(bool(stated.statements)))
        return {name: np.array(values, np.float64) for name, values in found.items()}


def _share(part: int, whole: Collection[object]) -> float:
    return part / len(whole) if whole else np.nan
