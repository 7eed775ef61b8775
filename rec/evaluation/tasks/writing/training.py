"""What simple answers and factuality are told of training: texts, features and opinions by item and feature."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rec.evaluation.task import Batches
from rec.evaluation.tasks.writing.facts import FactReader, Support

Key = tuple[Any, ...]


class TrainingTexts:
    """Texts of training, in the order of the data.

    A text is kept under several keys: () for all, ("item", i), ("feature", f), and ("item", i, f).
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.counts: dict[Key, Counter[str]] = {}
        self.first: dict[Key, str] = {}
        self.features: dict[Key, Counter[str]] = {}
        """The features of all and of each item, those that were seen first first."""

    def add(self, texts: Sequence[str], item: Sequence[int] | None, features: Sequence[str] | None) -> None:
        """Take in some texts, with their items and features where these are known."""
        for place, text in enumerate(texts):
            feature = features[place] if features is not None else ""
            member = item[place] if item is not None else -1
            keys: list[Key] = [(), *([("item", member)] if member >= 0 else [])]
            for key in keys if feature else ():
                self.features.setdefault(key, Counter())[feature] += 1
            keys += [("feature", feature)] if feature else []
            for key in keys:
                self.counts.setdefault(key, Counter())[text] += 1
                self.first.setdefault(key, text)
            if feature and member >= 0:
                self.first.setdefault(("item", member, feature), text)
            self.texts.append(text)

    def frequent(self, *keys: Key) -> str:
        """Return the most frequent text under the first key that has one, the first by letters among several."""
        return most_frequent(next(self.counts[key] for key in (*keys, ()) if key in self.counts))

    def earliest(self, *keys: Key) -> str:
        """Return the first text under the first key that has one."""
        return next(self.first[key] for key in (*keys, ()) if key in self.first)

    def feature(self, item: int) -> str:
        """Return the commonest feature of an item, the one seen first among several; of an unknown item that of all."""
        return next(self.features[key] for key in (("item", item), ()) if key in self.features).most_common(1)[0][0]


def most_frequent(counts: Counter[str]) -> str:
    """Return the text that stands there most often, the first by letters among several: of b, a, b it is b."""
    return min(counts.items(), key=lambda entry: (-entry[1], entry[0]))[0]


def items_of(system: Any, batch: Any, about: str) -> list[int] | None:
    """Return the item that each text of a batch is about, None where the system does not tell."""
    index_B = system.written(batch).get(about)
    return None if index_B is None else [int(index) for index in index_B.tolist()]


def read(
    system: Any, batches: Batches, about: str, clean: Callable[[str], str] = str
) -> tuple[TrainingTexts, Support | None]:
    """Return what training tells, and what supports statements; None where there are no items or no features.

    Features and opinions that texts are searched for are those of the whole data set, where the system tells them, and
    those of training's labels.

    Args:
        system: A writer.
        batches: Its batches of a split.
        about: The entity that texts are of.
        clean: Makes a text one whose words are what stands between white space, before statements are read.
    """
    training, parts = TrainingTexts(), []
    features: set[str] = set(system.all_features())
    opinions: set[str] = set(system.all_opinions())
    for batch in batches("train"):
        texts, item = system.references(batch), items_of(system, batch, about)
        feature, opinion = system.features(batch), system.opinions(batch)
        training.add(texts, item, feature)
        features |= _names(feature)
        opinions |= _names(opinion)
        if item is not None:
            parts.append((item, [clean(text) for text in texts], feature, opinion))
    if not parts or not features:
        return training, None
    support = Support(FactReader(features, opinions))
    for part in parts:
        support.add(*part)
    return training, support


def _names(names: Iterable[str] | None) -> set[str]:
    return {name for name in names or () if name}
