"""The writing task: the text that each example is given, beside the one that was written.

Letters: B examples, S statistics of BLEU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from torch import nn

from rec.data.prepared import Prepared
from rec.evaluation.bootstrap import Summed
from rec.evaluation.records import Records, column, records_of
from rec.evaluation.service import Context, Service
from rec.evaluation.task import ALONE, Batches, Groups, Names, Ranks, Task, Values, holds_everywhere
from rec.evaluation.task import Measured as TaskMeasured
from rec.evaluation.tasks.sparsity import by_sparsity, meaning_of_group
from rec.evaluation.tasks.values import MetricValue, notes
from rec.evaluation.tasks.writing import baselines, meanings, sections
from rec.evaluation.tasks.writing.bleu import bleu, bleu_smooth
from rec.evaluation.tasks.writing.metrics import DISTINCT_ORDERS, Measured, higher_is_better, measure, summary
from rec.evaluation.tasks.writing.occurrences import occurrences
from rec.evaluation.tasks.writing.service import WritingService
from rec.evaluation.tasks.writing.words import first_words, ngrams, spaced
from rec.keys import EvaluateConfig
from rec.sections import Section
from rec.systems.capabilities import Decoding, Writer

OF_ROW = (
    *(f"{name}_{kind}" for name in ("rouge1", "rouge2", "rouge_l_nmt") for kind in "fpr"),
    *("rouge_l_f1", "fmr"),
    *(f"distinct{order}_sentence" for order in DISTINCT_ORDERS),
)
"""Metrics that are means over examples."""
GREEDY = Decoding()
ABOUT = "about/"
"""Start of the names of records' columns with the members that a text is of."""


@dataclass(frozen=True)
class Writing(Task):
    """Writing of texts."""

    name: ClassVar[str] = "writing"

    decoding: Decoding = GREEDY
    """How texts are drawn that are measured."""
    most_words: int = 0
    """Both texts are cut to so many words before they are scored, as PETER cuts them to 15; 0 cuts nothing."""
    space_signs: bool = False
    """Whether signs are set apart from words before texts are scored, as PEPLER and GaVaMoE do."""
    headline: str = "bleu4"
    shown: tuple[str, ...] = ("bleu4", "bleu1", "rouge1_f", "rouge_l_f1", "fmr", "usr")

    @property
    def directions(self) -> Mapping[str, bool]:
        """Every metric; higher is better but for shared features (div)."""
        return higher_is_better

    def meaning(self, name: str) -> str:
        """Return in a few words what a metric, a simple answer or a group is."""
        return meanings.of(name) or meaning_of_group(name)

    def records(
        self,
        system: Writer[Any, Any],
        module: nn.Module,
        batch: Any,
        *,
        detail: EvaluateConfig | None = None,
        ranks: Ranks = ALONE,
    ) -> Records:
        """Return the text written for each example, the one that was, and what metrics need of both.

        All ranks end their texts together: none stops asking its experts while another has tokens left.
        """
        texts = system.write(module, batch, self.decoding, all_done=lambda done: holds_everywhere(ranks, done))
        return self.record(system, batch, texts)

    def answers(
        self,
        system: Writer[Any, Any],
        module: nn.Module,
        batch: Any,
        names: Names,
        *,
        most: int = 10,
        records: Records | None = None,
    ) -> dict[str, Any]:
        """Return `text`."""
        if records is not None:
            return {"text": records["text"].combine_chunks()}
        return {"text": pa.array(system.write(module, batch, self.decoding), pa.string())}

    def record(self, system: Writer[Any, Any], batch: Any, texts: Sequence[str]) -> Records:
        """Return the records of a batch that was answered with these texts."""
        references, feature, known = (
            system.references(batch),
            system.features(batch),
            sorted(set(system.all_features())),
        )
        scored, wanted = ([self._scored(text) for text in both] for both in (texts, references))
        measured = measure(scored, wanted, feature=feature, features=known)
        columns: dict[str, Any] = {"text": text_column(texts), "reference": text_column(references)}
        columns |= {"scored": text_column(scored)}
        columns |= {f"{ABOUT}{name}": index_B for name, index_B in system.written(batch).items()}
        columns |= {"words": np.array([len(text.split()) for text in wanted])}
        if feature is not None:
            columns["feature"] = text_column(feature)
        if known:
            words = [set(text.split()) for text in scored]
            inside = np.array([[one in text for one in known] for text in words])
            example_P, feature_P = inside.nonzero()
            columns["features"] = feature_P, example_P
            columns["num_features"] = np.full(len(scored), len(known))
        return records_of({**columns, "bleu": measured.bleu_NS, **measured.column}, len(scored))

    def _scored(self, text: str) -> str:
        text = spaced(text) if self.space_signs else text
        return first_words(text, number=self.most_words) if self.most_words else text

    def values(self, records: Records) -> Values:
        """Return ROUGE, the distinct share of each text's words, and whether it holds its feature."""
        return {name: column(records, name) for name in OF_ROW if name in records.column_names}

    def sums(self, records: Records) -> Mapping[str, Summed]:
        """Return BLEU, with and without smoothing."""
        part_BS = column(records, "bleu").astype(np.float64)
        return {
            f"bleu{order}{suffix}": Summed(part_BS=part_BS, of_total=_Bleu(function, order))
            for suffix, function in (("", bleu), ("_smooth", bleu_smooth))
            for order in (1, 4)
        }

    def metrics(self, records: Records, values: Values | None = None) -> dict[str, float | None]:
        """Return every metric, those of the whole corpus of texts too."""
        return {name: found.value for name, found in _summary(records).items()}

    def identity(self, records: Records) -> list[np.ndarray]:
        """Return the texts that were written for the examples."""
        return [column(records, "reference")]

    def groups(self, system: Any, data: Prepared, split: str, records: Records, config: EvaluateConfig) -> Groups:
        """Return how much the user wrote in training where the data tell it, else whether a text is short or long.

        Short is up to the middle number of words of the texts that were written.
        """
        if f"{ABOUT}user" in records.column_names:
            found = by_sparsity(data, column(records, f"{ABOUT}user"))
            if found is not None:
                return found
        words_B = column(records, "words")
        middle = int(np.median(words_B)) if len(words_B) else 0
        return Groups((f"up to {middle} words", f"more than {middle} words"), (words_B > middle).astype(np.int64))

    def baselines(
        self, system: Any, data: Prepared, split: str, batches: Batches
    ) -> Mapping[str, Mapping[str, float | None]]:
        """Return what the most frequent text of training reaches, that of each feature, and texts drawn at random."""
        return baselines.measure(self, system, split, batches)

    def enrich(self, measured: TaskMeasured) -> list[str]:
        """Tell why a metric has no value."""
        return notes(_summary(measured.records))

    def sections(self, measured: TaskMeasured) -> list[Section]:
        """Return some texts beside those that were written, and the texts that are written most often."""
        return sections.sections(self, measured)

    def service(self, context: Context) -> Service:
        """Return what answers requests."""
        return WritingService(context, self.decoding)


def text_column(texts: Sequence[str]) -> Any:
    """Return texts as a column of records, of the same type whether there are any."""
    return pa.array(list(texts), pa.string())


@dataclass(frozen=True)
class _Bleu:
    function: Any
    order: int

    def __call__(self, total_S: np.ndarray) -> float | None:
        return float(self.function(total_S, order=self.order)) if total_S.any() else None


def _summary(records: Records) -> dict[str, MetricValue]:
    """Return every metric over records, from what each of them holds and from all texts together."""
    if not len(records):
        return summary(measure([], []))
    words = [text.split() for text in column(records, "scored")]
    features = records["features"].to_pylist() if "features" in records.column_names else []
    return summary(
        Measured(
            column={name: column(records, name) for name in OF_ROW if name in records.column_names},
            bleu_NS=column(records, "bleu"),
            sentences=occurrences([tuple(text)] for text in words),
            ngrams={order: occurrences(ngrams(text, order) for text in words) for order in DISTINCT_ORDERS},
            features=occurrences(features),
            num_features=int(column(records, "num_features")[0]) if features else 0,
        )
    )
