"""Simple texts that every model is told beside: the most frequent one, that of a feature, and texts drawn at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rec.evaluation.records import joined
from rec.evaluation.task import Batches
from rec.seeds import generator

if TYPE_CHECKING:
    from rec.evaluation.tasks.writing.task import Writing

FREQUENT, OF_FEATURE, RANDOM = "most frequent text", "most frequent text of the feature", "a text drawn at random"


def measure(task: Writing, system: Any, split: str, batches: Batches) -> Mapping[str, Mapping[str, float | None]]:
    """Return every metric of every simple answer over the examples of a split, from the texts of training."""
    texts: list[str] = []
    by_feature: dict[str, list[str]] = {}
    for batch in batches("train"):
        found = system.references(batch)
        texts += found
        for text, feature in zip(found, system.features(batch) or [], strict=False):
            by_feature.setdefault(feature, []).append(text)
    if not texts:
        return {}
    rng, frequent = generator(0, "texts at random"), most_frequent(texts)
    of_feature = {feature: most_frequent(found) for feature, found in by_feature.items()}
    parts: dict[str, list[Any]] = {FREQUENT: [], OF_FEATURE: [], RANDOM: []}
    for batch in batches(split):
        drawn = [texts[place] for place in rng.integers(0, len(texts), len(batch))]
        parts[FREQUENT].append(task.record(system, batch, [frequent] * len(batch)))
        parts[RANDOM].append(task.record(system, batch, drawn))
        features = system.features(batch)
        if features is not None:
            own = [of_feature.get(feature, frequent) for feature in features]
            parts[OF_FEATURE].append(task.record(system, batch, own))
    return {name: task.metrics(joined(tables)) for name, tables in parts.items() if tables}


def most_frequent(texts: list[str]) -> str:
    """Return the text that stands there most often, the first by letters among several: of b, a, b it is b."""
    return min(Counter(texts).items(), key=lambda entry: (-entry[1], entry[0]))[0]
