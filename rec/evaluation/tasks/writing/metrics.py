"""Metrics of generated texts: per row as plain arrays, then over rows.

BLEU and ROUGE are in percent as they are published; shares (USR, FMR, FCR, Distinct-n) lie in [0, 1].
Letters: N rows, S statistics of BLEU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rec.errors import DataError
from rec.evaluation.tasks.values import MetricValue, mean
from rec.evaluation.tasks.writing.bleu import bleu, bleu_smooth, bleu_statistics
from rec.evaluation.tasks.writing.occurrences import (
    Occurrences,
    distinct_share,
    feature_coverage,
    feature_diversity,
    occurrences,
)
from rec.evaluation.tasks.writing.rouge import rouge_l, rouge_n
from rec.evaluation.tasks.writing.words import ngrams
from rec.sections import counted

DISTINCT_ORDERS = (1, 2)
higher_is_better: Mapping[str, bool] = {
    **dict.fromkeys(("bleu1", "bleu4", "bleu1_smooth", "bleu4_smooth"), True),
    **{f"{name}_{kind}": True for name in ("rouge1", "rouge2", "rouge_l_nmt") for kind in "fpr"},
    "rouge_l_f1": True,
    "usr": True,
    "usn": True,
    "fmr": True,
    "fcr": True,
    "div": False,
    **{f"distinct{order}_{level}": True for order in DISTINCT_ORDERS for level in ("corpus", "sentence")},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMetrics:
    """What `summary` needs of every row of a corpus."""

    column: Mapping[str, np.ndarray]
    """Metrics of each row, (N,) each: ROUGE, Distinct-n of the sentence, and fmr where features are known."""
    bleu_NS: np.ndarray
    """Counts of each row; they add (see `bleu_statistics`)."""
    sentences: Occurrences
    ngrams: Mapping[int, Occurrences]
    """Of orders 1 and 2."""
    features: Occurrences
    """Each feature once per row that holds it as a word."""
    num_features: int
    """Features of the whole corpus; 0 where none are known."""

    def __len__(self) -> int:
        return len(self.bleu_NS)


def measure(
    generated: Sequence[str],
    reference: Sequence[str],
    *,
    feature: Sequence[str] | None = None,
    features: Collection[str] = (),
) -> RowMetrics:
    """Return what every metric needs of each row; an empty text is scored like any other.

    `feature` is the true feature of each row, `features` all features of the corpus (training, validation and test).
    BLEU, USR, Distinct-n and features use words between white space, ROUGE those between single blanks: cut texts to
    the words that are to be scored before (see `words`).

    Raises: DataError where there are not as many references or features as texts.
    """
    for name, values in (("reference", reference), ("feature", feature)):
        if values is not None and len(values) != len(generated):
            raise DataError(
                f"{name}: found {counted(len(values), 'row')}, expected {len(generated)}, one per generated text"
            )
    words = [text.split() for text in generated]
    known = set(features)
    column = {
        **rouge_n(generated, reference, order=1),
        **rouge_n(generated, reference, order=2),
        **rouge_l(generated, reference),
        **{f"distinct{order}_sentence": distinct_words(words, order=order) for order in DISTINCT_ORDERS},
    }
    if feature is not None:
        column["fmr"] = feature_match(words, feature)
    return RowMetrics(
        column=column,
        bleu_NS=bleu_statistics(words, [text.split() for text in reference]),
        sentences=occurrences([tuple(text)] for text in words),
        ngrams={order: occurrences(ngrams(text, order) for text in words) for order in DISTINCT_ORDERS},
        features=occurrences(known.intersection(text) for text in words),
        num_features=len(known),
    )


def feature_match(words: Sequence[Sequence[str]], feature: Sequence[str]) -> np.ndarray:
    """Return whether each row holds its true feature as one word, float64 (N,); their mean is FMR.

    "great sound ." holds sound, but neither "so" nor a feature of two words such as "great sound".
    """
    return np.array([float(one in text) for text, one in zip(words, feature, strict=True)], np.float64)


def distinct_words(words: Sequence[Sequence[str]], *, order: int) -> np.ndarray:
    """Return the share of each row's n-grams that are distinct, float64 (N,); 0 for a row without n-grams.

    "a b a" holds 2 distinct words of 3, so 2/3, and 2 distinct pairs of 2, so 1.
    """
    share = [len(set(ngrams(text, order))) / max(len(text) - order + 1, 1) for text in words]
    return np.array(share, np.float64)


def summary(measured: RowMetrics, weight_N: np.ndarray | None = None) -> dict[str, MetricValue]:
    """Return every metric over the rows of `measure`; a weight says how often a row counts.

    Weights of 0 and 1 give a group of rows, how often each row was drawn gives a resample. A resample repeats
    rows, which lowers usr and distinct and raises div: read their spread over resamples, not their level.
    Two rows of which one has rouge1_f 60 and the other 20 give 40; BLEU is that of the summed counts, not a mean.
    """
    if weight_N is None:
        weight_N = np.ones(len(measured))
    rows = float(weight_N.sum())
    total_S = weight_N @ measured.bleu_NS
    result = dict.fromkeys(("fmr", "fcr", "div"), MetricValue(value=None, count=0, note="no features are given"))
    result |= {
        f"bleu{order}{suffix}": _of_rows(function(total_S, order=order), rows)
        for suffix, function in (("", bleu), ("_smooth", bleu_smooth))
        for order in (1, 4)
    }
    result |= {name: mean(value_N, weight_N, of="rows") for name, value_N in measured.column.items()}
    sentence_K = measured.sentences.counts(weight_N)
    result["usr"] = distinct_share(sentence_K, of="rows")
    result["usn"] = _of_rows(float(np.count_nonzero(sentence_K)), rows)
    for order, grams in measured.ngrams.items():
        result[f"distinct{order}_corpus"] = distinct_share(grams.counts(weight_N), of=f"n-grams of {order} words")
    return result | (_of_features(measured, weight_N, rows) if measured.num_features else {})


def _of_rows(value: float, rows: float) -> MetricValue:
    return MetricValue(value=value, count=rows) if rows else MetricValue(value=None, count=0, note="no rows")


def _of_features(measured: RowMetrics, weight_N: np.ndarray, rows: float) -> dict[str, MetricValue]:
    count_K = measured.features.counts(weight_N)
    coverage = feature_coverage(count_K, num_features=measured.num_features) if rows else _of_rows(0, rows)
    return {"fcr": coverage, "div": feature_diversity(count_K, num_rows=rows)}
