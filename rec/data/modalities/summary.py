"""What was written of all items, counted: by whom, how faithful, at what cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rec.data.modalities.budget import Prices
from rec.data.modalities.items import TEMPLATE, Written
from rec.data.modalities.job import ModalityJob
from rec.data.modalities.language_model import AskingStatus
from rec.data.modalities.writers import ModelWriter


@dataclass(slots=True)
class OfModality:
    """The texts of one modality."""

    writers: Counter[str] = field(default_factory=Counter)
    """Texts by who wrote them; a text that is empty is written by nobody."""
    judged: int = 0
    faithfulness: float = 0.0
    """Sums over the texts that a model wrote, as `words` and `entities`."""
    words: float = 0.0
    entities: float = 0.0

    def merge(self, more: OfModality) -> None:
        """Count what was counted elsewhere."""
        self.writers.update(more.writers)
        self.judged += more.judged
        self.faithfulness += more.faithfulness
        self.words += more.words
        self.entities += more.entities

    def as_json(self, items: int) -> dict[str, Any]:
        """Return shares and means."""
        each = self.judged or 1
        means = {name: getattr(self, name) / each for name in ("faithfulness", "words", "entities")}
        return {
            "coverage": sum(self.writers.values()) / max(items, 1),
            "writers": dict(self.writers),
            **(means if self.judged else dict.fromkeys(means)),
        }


@dataclass(slots=True)
class Summary:
    """All items that were written so far."""

    items: int = 0
    asked: int = 0
    """Items that a model was asked about."""
    with_passages: int = 0
    ambiguous: int = 0
    """Of those, items without a year whose title things of several years have."""
    repaired: int = 0
    reflected: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    modalities: dict[str, OfModality] = field(default_factory=dict)

    def add(self, written: Sequence[Written]) -> None:
        """Count some more items."""
        for one in written:
            self.items += 1
            self.asked += bool(one.model)
            self.with_passages += bool(one.item.retrieved)
            self.ambiguous += any(found.match == "ambiguous title" for found in one.item.retrieved)
            self.repaired += one.repaired
            self.reflected += one.reflected
            if one.fault:
                self.faults[one.fault[:120]] += 1
            for name, text in one.texts.items():
                of = self.modalities.setdefault(name, OfModality())
                if text:
                    of.writers[one.writers[name]] += 1
                if (judged := one.faithfulness.get(name)) is not None:
                    of.judged += 1
                    of.faithfulness += judged.score
                    of.words += judged.words
                    of.entities += judged.entities

    @classmethod
    def by_template(cls, texts: Mapping[str, Sequence[str]]) -> Summary:
        """Return what is told of items that templates wrote, by modality a text of each."""
        found = cls(items=max(map(len, texts.values()), default=0))
        for name, column in texts.items():
            there = sum(map(bool, column))
            found.modalities[name] = OfModality(writers=Counter({TEMPLATE: there} if there else {}))
        return found

    def merge(self, more: Summary) -> None:
        """Count what was counted elsewhere."""
        for name in ("items", "asked", "with_passages", "ambiguous", "repaired", "reflected"):
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.faults.update(more.faults)
        for name, of in more.modalities.items():
            self.modalities.setdefault(name, OfModality()).merge(of)

    def as_json(
        self, told: AskingStatus | None = None, cached: int = 0, prices: Prices | None = None
    ) -> dict[str, Any]:
        """Return counts, means and, where a model was asked, what that took."""
        found: dict[str, Any] = {
            "items": self.items,
            "asked": self.asked,
            "with_passages": self.with_passages,
            "ambiguous": self.ambiguous,
            "repaired": self.repaired,
            "reflected": self.reflected,
            "faults": dict(self.faults.most_common(10)),
            "modalities": {name: of.as_json(self.items) for name, of in self.modalities.items()},
        }
        if told is not None:
            found["requests"] = {
                "made": told.requests, "retried": told.retries, "from cache": cached, "input tokens": told.usage.input,
                "output tokens": told.usage.output, "money": (prices or Prices()).money(told.usage),
            }  # fmt: skip
        return found


def told_of(job: ModalityJob, summary: Summary) -> dict[str, Any]:
    """Return what is told of all items that a job wrote, with what asking took."""
    if isinstance(job.writer, ModelWriter):
        return summary.as_json(job.writer.model.told, job.writer.cached, job.prices)
    return summary.as_json()
