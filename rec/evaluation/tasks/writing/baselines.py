"""Simple texts that every model is told beside: templates, copies of training's texts, and texts drawn at random.

What is marked as a leak is told the feature that the true text is about, as models of that track are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rec.evaluation.records import joined
from rec.evaluation.task import Batches
from rec.evaluation.tasks.writing.bertscore import Encoder, encoder_of
from rec.evaluation.tasks.writing.facts import Support
from rec.evaluation.tasks.writing.training import TrainingTexts, items_of, read
from rec.seeds import generator

if TYPE_CHECKING:
    from rec.evaluation.tasks.writing.task import Writing

ITEM_TEMPLATE = "template of the item's feature"
FIRST_OF_ITEM, FREQUENT_OF_ITEM = "first text of the item", "most frequent text of the item"
FREQUENT, RANDOM = "most frequent text", "a text drawn at random"
TRUE_TEMPLATE = "template of the true feature (leak)"
SAME_FEATURE = "first text of the true feature (leak)"
OF_FEATURE = "most frequent text of the true feature (leak)"
FEATURE = "{feature}"
"""Stands for the feature in a template."""
LEAKS = (TRUE_TEMPLATE, SAME_FEATURE, OF_FEATURE)
"""Those that are told the true feature."""


def measure(
    task: Writing, system: Any, split: str, batches: Batches, known: TextReferences | None = None
) -> Mapping[str, Mapping[str, float | None]]:
    """Return every metric of every simple answer over the examples of a split, from the texts of training."""
    known = known_of(task, system, batches) if known is None else known
    training, support, encoder = known.training, known.support, known.encoder
    if not training.texts:
        return {}
    rng = generator(0, "texts at random")
    parts: dict[str, list[Any]] = {}
    item: list[int] = []
    for batch in batches(split):
        for name, texts in answers(task.template, training, system, batch, rng, task.about):
            parts.setdefault(name, []).append(task.record(system, batch, texts))
        item += items_of(system, batch, task.about) or []
    found = {}
    for name, tables in parts.items():
        records = joined(tables)
        facts = {} if support is None else support.measure(item, task.scored(records))
        found[name] = task.metrics(records, task.values(records) | facts | task.similar(records, encoder))
    return found


@dataclass(frozen=True, slots=True)
class TextReferences:
    """What both a model's texts and simple answers are measured by."""

    training: TrainingTexts
    support: Support | None
    encoder: Encoder | None


def known_of(task: Writing, system: Any, batches: Batches) -> TextReferences:
    """Return what training tells, and the model that scores texts."""
    return TextReferences(*read(system, batches, task.about, task.apart_from_signs), encoder_of(task.bertscore))


def answers(
    template: str, training: TrainingTexts, system: Any, batch: Any, rng: np.random.Generator, about: str = "item"
) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the name of every simple answer that can be given to a batch, and its texts.

    An item that training does not know is answered as all are.
    """
    features, item = system.features(batch), items_of(system, batch, about)
    if item is not None:
        if training.features:
            yield ITEM_TEMPLATE, [template.replace(FEATURE, training.feature(i)) for i in item]
        yield FIRST_OF_ITEM, [training.earliest(("item", i)) for i in item]
        yield FREQUENT_OF_ITEM, [training.frequent(("item", i)) for i in item]
    frequent = training.frequent()
    yield FREQUENT, [frequent] * len(batch)
    yield RANDOM, [training.texts[place] for place in rng.integers(0, len(training.texts), len(batch))]
    if features is None:
        return
    yield TRUE_TEMPLATE, [template.replace(FEATURE, feature) for feature in features]
    if item is not None:
        pairs = zip(item, features, strict=True)
        yield SAME_FEATURE, [training.earliest(("item", i, f), ("feature", f), ("item", i)) for i, f in pairs]
    yield OF_FEATURE, [training.frequent(("feature", feature)) for feature in features]
