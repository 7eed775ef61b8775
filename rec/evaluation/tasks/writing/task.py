"""The writing task: the text that each example is given, beside the one that was written.

Letters: B examples, S statistics of BLEU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from torch import nn

from rec.data.prepared import Prepared
from rec.evaluation.bootstrap import Summed
from rec.evaluation.records import Records, column, records_of, with_columns
from rec.evaluation.service import Context, Service
from rec.evaluation.task import ALONE, Batches, Groups, Measured, Names, Task, TaskRanks, Values, holds_everywhere, mean
from rec.evaluation.tasks.config import EvaluateConfig
from rec.evaluation.tasks.ranking.members import ids_of
from rec.evaluation.tasks.sparsity import by_sparsity, meaning_of_group
from rec.evaluation.tasks.values import MetricValue, notes
from rec.evaluation.tasks.writing import baselines, facts, late, likelihood, meanings, sections, settings
from rec.evaluation.tasks.writing import bertscore as bert
from rec.evaluation.tasks.writing.bleu import bleu, bleu_smooth
from rec.evaluation.tasks.writing.metrics import DISTINCT_ORDERS, RowMetrics, higher_is_better, measure, summary
from rec.evaluation.tasks.writing.occurrences import occurrences
from rec.evaluation.tasks.writing.service import WritingService
from rec.evaluation.tasks.writing.words import first_words, ngrams, spaced
from rec.evaluation.tasks.writing_config import BertScoreConfig
from rec.sections import Section
from rec.systems.capabilities import Decoding, Writer

OF_ROW = (
    *(f"{name}_{kind}" for name in ("rouge1", "rouge2", "rouge_l_nmt") for kind in "fpr"),
    *("rouge_l_f1", "fmr"),
    *(f"distinct{order}_sentence" for order in DISTINCT_ORDERS),
)
"""Metrics that are means over examples."""
GREEDY, NOT_SCORED = Decoding(), BertScoreConfig()
ABOUT = late.ABOUT


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
    about: str = "item"
    """The entity that texts are of: what its texts of training state supports what a text states."""
    template: str = f"this is a great {baselines.FEATURE} ."
    """The text that simple answers put a feature into."""
    bertscore: BertScoreConfig = NOT_SCORED
    judged_by: str = ""
    """Who scores texts over HTTP, in words, where somebody is asked."""
    headline: str = "bleu4"
    shown: tuple[str, ...] = (
        "factual", "hallucinated", "factual_coverage", "factual_pairs",
        "bleu4", "bleu1", "rouge1_f", "rouge_l_f1", "usr", "fmr", "fcr", "div", likelihood.NAME,
    )  # fmt: skip

    @property
    def directions(self) -> Mapping[str, bool]:
        """Every metric; lower is better of shared features (div), what nothing supports (hallucinated), and nll."""
        own = {likelihood.NAME: False, late.JUDGE: True}
        return {**higher_is_better, **dict.fromkeys(bert.NAMES, True), **facts.METRICS, **own}

    @property
    def late(self) -> tuple[str, ...]:
        """Metrics that need all of training, or a model beside the system's."""
        return (*facts.METRICS, *bert.NAMES, late.JUDGE)

    @property
    def grouped(self) -> tuple[str, ...]:
        """All that is shown."""
        return self.shown

    @property
    def evaluate_keys(self) -> tuple[str, ...]:
        """How texts are written and cut, and which models score them."""
        return ("words", "signs", "decoding", "bertscore", "judge")

    def configured(self, system: Writer[Any, Any], keys: EvaluateConfig) -> Writing:
        """Return the task whose texts are written as the config says."""
        return replace(self, decoding=settings.decoding_of(self.decoding, keys.decoding, system))

    def settle(self, system: Any, module: nn.Module, validation: Iterable[Any], keys: EvaluateConfig) -> dict[str, Any]:
        """Return what the config says of how texts are cut and compared."""
        return settings.settle(keys)

    def settled(self, told: Mapping[str, Any]) -> Writing:
        """Return the task with this."""
        return replace(self, **settings.settled(told))

    def settings(self, system: Writer[Any, Any]) -> dict[str, str]:
        """Return the track, which words are scored, and how texts are drawn and compared."""
        return settings.told(self, system)

    @property
    def apart(self) -> tuple[str, ...]:
        """The track, which words are scored, and how texts are drawn."""
        return settings.APART

    def told_more(self, system: Writer[Any, Any]) -> tuple[str, ...]:
        """Return the simple answers that are told the true feature, unless the system is told it too."""
        return () if "feature" in system.truth_given() else baselines.LEAKS

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
        ranks: TaskRanks = ALONE,
    ) -> Records:
        """Return the text written for each example, the one that was, and what metrics need of both.

        All ranks end their texts together: none stops asking its experts while another has tokens left.
        """
        told = likelihood.columns(system.nll(module, batch))
        texts = system.write(module, batch, self.decoding, all_done=lambda done: holds_everywhere(ranks, done))
        return with_columns(self.record(system, batch, texts), told)

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
            place = {name: index for index, name in enumerate(known)}
            named = [sorted({place[word] for word in text.split() if word in place}) for text in scored]
            example_P = np.repeat(np.arange(len(named)), [len(one) for one in named])
            columns["features"] = np.array([index for one in named for index in one], np.int64), example_P
            columns["num_features"] = np.full(len(scored), len(known))
        return records_of({**columns, "bleu": measured.bleu_NS, **measured.column}, len(scored))

    def _scored(self, text: str) -> str:
        text = self.apart_from_signs(text)
        return first_words(text, number=self.most_words) if self.most_words else text

    def apart_from_signs(self, text: str) -> str:
        """Return a text as it is scored, but whole."""
        return spaced(text) if self.space_signs else text

    def scored(self, records: Records) -> list[str]:
        """Return the texts of records as they are scored."""
        return [str(text) for text in column(records, "scored")]

    def wanted(self, records: Records) -> list[str]:
        """Return the true texts of records as they are scored."""
        return [self._scored(text) for text in column(records, "reference")]

    def similar(self, records: Records, encoder: bert.Encoder | None) -> Values:
        """Return BERTScore of every text, empty where no model is at hand."""
        if encoder is None:
            return {}
        return bert.bertscore(self.scored(records), self.wanted(records), encoder)

    def late_values(self, measured: Measured) -> Values:
        """Return how factual each text is, and what models say of it."""
        return late.values(self, measured)

    def values(self, records: Records) -> Values:
        """Return ROUGE, the distinct share of each text's words, and whether it holds its feature."""
        return {name: column(records, name) for name in OF_ROW if name in records.column_names}

    def sums(self, records: Records) -> Mapping[str, Summed]:
        """Return BLEU, with and without smoothing, and the likelihood of the true texts where it is told."""
        part_BS = column(records, "bleu").astype(np.float64)
        return likelihood.sums(records) | {
            f"bleu{order}{suffix}": Summed(part_BS=part_BS, of_total=_Bleu(function, order))
            for suffix, function in (("", bleu), ("_smooth", bleu_smooth))
            for order in (1, 4)
        }

    def metrics(self, records: Records, values: Values | None = None) -> dict[str, float | None]:
        """Return every metric, those of the whole corpus of texts too, and those of `late_values` where they are."""
        further = {name: mean(value_B) for name, value_B in (values or {}).items() if name in self.late}
        return {name: found.value for name, found in _summary(records).items()} | further

    def unlike(self, name: str, ours: Records, theirs: Records) -> str:
        """Return why likelihoods of two runs do not compare: their texts are cut into other tokens."""
        return likelihood.unlike(ours, theirs) if name == likelihood.NAME else ""

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
        """Return what templates, copies of texts of training and texts drawn at random reach."""
        return baselines.measure(self, system, split, batches)

    def keys(self, system: Any, data: Prepared, records: Records) -> dict[str, Any]:
        """Return the raw ids of those whose text it is, and of what it is about, where the data set has tables."""
        return ids_of(data, records, ABOUT)

    def simple_answers(self, measured: Measured, batches: Batches) -> Mapping[str, Mapping[str, float | None]]:
        """Return `baselines`; training is not read again, and no model loaded again, where `late_values` did."""
        known = measured.kept.pop(late.KNOWN, None)
        return baselines.measure(self, measured.system, measured.split, batches, known)

    def enrich(self, measured: Measured) -> list[str]:
        """Tell why a metric has no value, and how factual the true texts are."""
        return [*notes(_summary(measured.records)), *late.notes(measured)]

    def sections(self, measured: Measured) -> list[Section]:
        """Return the best, the worst and some other texts beside the true ones, and those that are written often."""
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
    told = {likelihood.NAME: likelihood.value(records)}
    if not len(records):
        return summary(measure([], [])) | told
    words = [text.split() for text in column(records, "scored")]
    features = records["features"].to_pylist() if "features" in records.column_names else []
    return (
        summary(
            RowMetrics(
                column={name: column(records, name) for name in OF_ROW if name in records.column_names},
                bleu_NS=column(records, "bleu"),
                sentences=occurrences([tuple(text)] for text in words),
                ngrams={order: occurrences(ngrams(text, order) for text in words) for order in DISTINCT_ORDERS},
                features=occurrences(features),
                num_features=int(column(records, "num_features")[0]) if features else 0,
            )
        )
        | told
    )
