"""How far two sets of texts of the same items differ: of two writers, or of two prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rec.data.modalities.words import WORD, Words


@dataclass(frozen=True, slots=True)
class Drift:
    """Two sets of texts of one modality; means over the items that have both, but for `only_before`, `only_after`."""

    items: int
    """Items that have both texts."""
    only_before: int
    only_after: int
    same: float
    """Share of items whose texts are equal."""
    overlap: float
    """Content words that both texts have, of those that either has."""
    cosine: float
    """Of the texts' vectors; 0 for a text without one."""
    others: float
    """Cosine of a text before with that of the next item after: what texts of different things have."""
    words_before: float
    """Words per text."""
    words_after: float
    faithfulness_before: float | None = None
    """Mean score, where it is known."""
    faithfulness_after: float | None = None


def drift(
    before: Sequence[str],
    after: Sequence[str],
    encode: Callable[[Sequence[str]], np.ndarray],
    scores: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Drift:
    """Return how far two texts of each item differ, "" where an item has none.

    Args:
        before: Of one writer.
        after: Of the other, of the same items.
        encode: Returns the vectors of texts, a row each.
        scores: Their faithfulness, for each writer.
    """
    both = [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a.strip() and b.strip()]
    first, second = [before[n] for n in both], [after[n] for n in both]
    only_before, only_after = (sum(bool(t.strip()) for t in texts) - len(both) for texts in (before, after))
    if not both:
        return Drift(0, only_before, only_after, same=0, overlap=0, cosine=0, others=0, words_before=0, words_after=0)
    words = Words()
    pairs = [(set(words.hashes(a)), set(words.hashes(b))) for a, b in zip(first, second, strict=True)]
    one_IC, two_IC = _unit(encode(first)), _unit(encode(second))
    lengths = [float(np.mean([len(WORD.findall(text)) for text in texts])) for texts in (first, second)]
    known = [None, None] if scores is None else [float(np.mean([part[n] for n in both])) for part in scores]
    return Drift(
        len(both),
        only_before,
        only_after,
        same=float(np.mean([a == b for a, b in zip(first, second, strict=True)])),
        overlap=float(np.mean([len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairs])),
        cosine=float((one_IC * two_IC).sum(1).mean()),
        others=float((one_IC * np.roll(two_IC, -1, 0)).sum(1).mean()),
        words_before=lengths[0],
        words_after=lengths[1],
        faithfulness_before=known[0],
        faithfulness_after=known[1],
    )


def _unit(vector_IC: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vector_IC, axis=1, keepdims=True)
    return vector_IC / np.where(norm > 0, norm, 1)
