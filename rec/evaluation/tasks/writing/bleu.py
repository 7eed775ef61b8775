"""BLEU of a corpus with one reference per row, from counts per row that add.

Letters: N rows, S = 10 statistics: matches of orders 1 to 4, n-grams of orders 1 to 4, words written, words of the
reference.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from rec.evaluation.tasks.writing.words import ngrams

ORDERS = 4


def bleu_statistics(generated: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the counts of each row that `bleu` needs summed, int64 (N, S).

    "a a b" against "a b c": 2 matching words (the second a is not in the reference again) of 3, 1 matching pair of 2,
    0 triples of 1, so (2, 1, 0, 0, 3, 2, 1, 0, 3, 3).
    """
    row = [_counts(words, target) for words, target in zip(generated, reference, strict=True)]
    return np.array(row, np.int64).reshape(-1, 2 * ORDERS + 2)


def _counts(words: Sequence[str], target: Sequence[str]) -> list[int]:
    match = [0] * ORDERS
    for order in range(1, ORDERS + 1):
        here, there = Counter(ngrams(words, order)), Counter(ngrams(target, order))
        match[order - 1] = sum(min(count, there[gram]) for gram, count in here.items() if gram in there)
        if match[order - 1] == 0:
            break  # Longer n-grams hold this one, so none of them matches either.
    possible = [max(0, len(words) - order) for order in range(ORDERS)]
    return [*match, *possible, len(words), len(target)]


def bleu(total_S: np.ndarray, *, order: int) -> float:
    """Return BLEU of n-grams up to `order`, in percent, from the summed statistics of rows.

    100 * exp(min(0, 1 - reference words / words)) * (p_1 ... p_order)^(1 / order) with p_k = matches / n-grams; 0 where
    any p_k is 0 or nothing was written. Totals (2, 1, 0, 0, 3, 2, 1, 0, 3, 3): order 1 gives 100 * 2/3,
    order 2 gives 100 * sqrt(2/3 * 1/2), order 4 gives 0.
    Source: BLEU of tensorflow/nmt without smoothing, which PETER and PEPLER report.
    """
    return _bleu(total_S, order, added=0)


def bleu_smooth(total_S: np.ndarray, *, order: int) -> float:
    """Return the smoothed BLEU of n-grams up to `order`, in percent: p_k = (matches + 1) / (n-grams + 1) for all k.

    It is 0 where nothing was written. Totals (2, 1, 0, 0, 3, 2, 1, 0, 3, 3): order 4 gives
    100 * (3/4 * 2/3 * 1/2 * 1/1)^(1/4).
    Source: BLEU of tensorflow/nmt with smoothing, which GaVaMoE reports under the plain name.
    """
    return _bleu(total_S, order, added=1)


def _bleu(total_S: np.ndarray, order: int, *, added: int) -> float:
    match_K = total_S[:order] + added
    possible_K = total_S[ORDERS : ORDERS + order] + added
    words, target_words = (float(v) for v in total_S[2 * ORDERS :])
    if words == 0 or (match_K == 0).any():
        return 0.0
    brevity = min(0.0, 1 - target_words / words)
    return 100 * math.exp(brevity + float(np.log(match_K / possible_K).mean()))
