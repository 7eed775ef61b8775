"""The score below which a text is taken for invented, chosen by inventions that are planted in the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rec.data.modalities.faithfulness import Checker
from rec.data.modalities.words import sentences

MOST_ITEMS = 20_000
"""Items that inventions are planted in."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold, and what it does on the data that it was chosen on."""

    value: float
    """Texts that score less are taken for invented."""
    found: float
    """Share of planted inventions that score less."""
    false_alarms: float
    """Share of faithful texts that do."""
    area: float
    """Under the ROC curve: how often a faithful text scores higher than an invention."""
    faithful: int
    """Texts as they were."""
    planted: int
    """Texts in which an invention was planted."""


def choose_thresholds(
    checker: Checker,
    texts: Sequence[Sequence[str]],
    sources: Sequence[Sequence[str]],
    false_alarms: float,
    rng: np.random.Generator,
    groups: Sequence[str] | None = None,
) -> list[Threshold | None]:
    """Return each modality's threshold, that finds most inventions of those with at most a share of false alarms.

    A modality that says more than its sources on every item, such as a pace that follows from the genre, has a lower
    threshold than one that quotes. None stands where nothing could be planted. A swapped sentence all of whose words
    the item's own sources have, such as its genre and decade, is no invention.

    Args:
        checker: What scores.
        texts: Of each item by modality, "" where there is none.
        sources: Of each item: what the texts were written from.
        false_alarms: Largest share of texts, as they are, that may score less.
        rng: Draws the items, at most MOST_ITEMS, and what is planted.
        groups: Of each item, such as its genre: inventions come from another item of the same group.
    """
    drawn = rng.permutation(len(texts))[:MOST_ITEMS] if len(texts) > MOST_ITEMS else np.arange(len(texts))
    rows = [texts[n] for n in drawn]
    planted = plant(rows, rng, None if groups is None else [groups[n] for n in drawn])
    faithful: list[list[float]] = [[] for _ in rows[0]] if rows else []
    invented: list[list[float]] = [[] for _ in faithful]
    for n, row, changed in zip(drawn, rows, planted, strict=True):
        lies = {k: text for k, text in enumerate(changed) if text and checker.lacking(text, sources[n])}
        scores = [one.score for one in checker.check([*row, *lies.values()], sources[n])]
        for k, text in enumerate(row):
            if text.strip():
                faithful[k].append(scores[k])
        for k, score in zip(lies, scores[len(row) :], strict=True):
            invented[k].append(score)
    return [
        threshold_of(np.array(own), np.array(lies), false_alarms) if own and lies else None
        for own, lies in zip(faithful, invented, strict=True)
    ]


def threshold_of(faithful: np.ndarray, invented: np.ndarray, false_alarms: float) -> Threshold:
    """Return the threshold between scores that finds most; of those that find as many, with fewest false alarms.

    It lies in the middle between two scores, so that texts a little worse than the worst faithful one pass.

    Raises:
        ValueError: there is no score of one of both.
    """
    if not len(faithful) or not len(invented):
        raise ValueError(f"{len(faithful)} faithful and {len(invented)} invented scores, expected some of both")
    scores = np.unique(np.concatenate([faithful, invented]))
    edges = np.concatenate([[scores[0]], (scores[:-1] + scores[1:]) / 2, [scores[-1]]])
    faithful, invented = np.sort(faithful), np.sort(invented)
    alarms, found = (np.searchsorted(part, edges) / len(part) for part in (faithful, invented))
    allowed = alarms <= false_alarms
    best = int(np.lexsort((alarms[allowed], -found[allowed]))[0])
    below, upto = (np.searchsorted(invented, faithful, side) for side in ("left", "right"))
    area = float((below + upto).mean() / 2 / len(invented))
    value, alarm, share = (float(part[allowed][best]) for part in (edges, alarms, found))
    return Threshold(value, share, alarm, area, len(faithful), len(invented))


def plant(
    rows: Sequence[Sequence[str]], rng: np.random.Generator, groups: Sequence[str] | None = None
) -> list[list[str | None]]:
    """Return texts with one sentence swapped for one of another item's same modality, None where nothing changes.

    Args:
        rows: Texts of items by modality.
        rng: Draws the other item and both sentences.
        groups: Of each item: the other one is of the same, where there is another.
    """
    of_group: dict[str, list[int]] = {}
    for n, group in enumerate(groups if groups is not None else [""] * len(rows)):
        of_group.setdefault(group, []).append(n)
    found: list[list[str | None]] = []
    for n, row in enumerate(rows):
        near = of_group[groups[n] if groups is not None else ""]
        other = int(near[int(rng.integers(len(near)))]) if len(near) > 1 else int(rng.integers(len(rows)))
        found.append([_swapped(text, rows[other][k], rng) if other != n else None for k, text in enumerate(row)])
    return found


def _swapped(text: str, other: str, rng: np.random.Generator) -> str | None:
    own, theirs = sentences(text), [one for one in sentences(other) if one not in text]
    if not own or not theirs:
        return None
    own[int(rng.integers(len(own)))] = theirs[int(rng.integers(len(theirs)))]
    return " ".join(own)
