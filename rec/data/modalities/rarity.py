"""How rare words are among what is known of items: what a word that sources share, or lack, tells."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rec.data.modalities.words import WORD, Words

SUPPORT = 0.35
"""Share of the content words of a faithful text that its sources have, beyond chance. Of a text that quotes it is 1, of
another author's account of the same film 0.2; what is found hardly changes between."""
AGAINST = -math.log(1 - SUPPORT)
"""Evidence of a word that sources lack: sources of other items lack it as often, and these 1 - SUPPORT times as often,
however rare it is."""
MOST_WORDS = 1 << 18
"""Words whose rarity is kept; others are as rare as can be."""


@dataclass(frozen=True, slots=True)
class Rarity:
    """The evidence of words that sources have: logarithms of how much likelier that is of a faithful text."""

    items: int = 0
    """Items whose sources it was learned from."""
    weight: dict[int, float] = field(default_factory=dict)
    """By hash."""
    common: frozenset[int] = frozenset()
    """Words that stand in lower case somewhere: capitals do not make them names."""

    def of(self, word: int) -> float:
        """Return the evidence of a word."""
        found = self.weight.get(word)
        return evidence(0, self.items) if found is None else found

    @classmethod
    def learned(cls, sources: Iterable[Sequence[str]], words: Words | None = None) -> Rarity:
        """Return what the sources of some items teach; each item's are several texts."""
        words, count, items = words or Words(), Counter[int](), 0
        common = set[int]()
        for texts in sources:
            items += 1
            here = set[int]()
            for form in dict.fromkeys(WORD.findall("\n".join(texts))):
                if hashed := words.hash_of(form):
                    here.add(hashed)
                    if form[0].islower():
                        common.add(hashed)
            count.update(here)
        kept = dict(count.most_common(MOST_WORDS))
        return cls(items, {h: evidence(n, items) for h, n in kept.items()}, frozenset(common & kept.keys()))


def evidence(count: int, items: int) -> float:
    """Return the evidence of a word that the sources of `count` of `items` items have.

    Sources of another item have it by chance p = (count + 1/2) / (items + 1), the right ones besides with SUPPORT.
    """
    by_chance = (count + 0.5) / (items + 1)
    return math.log((SUPPORT + (1 - SUPPORT) * by_chance) / by_chance)
