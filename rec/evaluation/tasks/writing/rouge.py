"""ROUGE of each row against one reference, in percent.

Source: `rouge.py` of tensorflow/nmt, which PETER, PEPLER and GaVaMoE use. It differs from the usual ROUGE in three
ways, all kept: words are what stands between single blanks (a run of blanks holds empty words, a newline belongs to a
word), n-grams count once however often they are repeated, and the F of ROUGE-L weighs by beta = P / R.
Letters: N rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rec.evaluation.tasks.writing.words import ngrams


def rouge_n(generated: Sequence[str], reference: Sequence[str], *, order: int) -> dict[str, np.ndarray]:
    """Return precision, recall and F of each row's sets of n-grams, (N,) each: `rouge1_p`, `_r`, `_f` of order 1.

    "a b b d" against "a b c": the sets {a, b, d} and {a, b, c} share 2, so P = 2/3, R = 2/3, F = 2PR / (P + R + 1e-8).
    A side without n-grams gives 0.
    """
    row = []
    for text, target in zip(generated, reference, strict=True):
        here, there = set(ngrams(text.split(" "), order)), set(ngrams(target.split(" "), order))
        both = len(here & there)
        row.append((both / max(len(here), 1), both / max(len(there), 1)))
    precision_N, recall_N = np.array(row, np.float64).reshape(-1, 2).T
    f_N = 2 * precision_N * recall_N / (precision_N + recall_N + 1e-8)
    return {f"rouge{order}_{kind}": 100 * v for kind, v in (("f", f_N), ("p", precision_N), ("r", recall_N))}


def rouge_l(generated: Sequence[str], reference: Sequence[str]) -> dict[str, np.ndarray]:
    """Return ROUGE-L of each row, (N,) each: `rouge_l_nmt_f`, `_p`, `_r` as published, and the usual `rouge_l_f1`.

    P and R are the longest common subsequence over the words of either text; beta = P / (R + 1e-12),
    F = (1 + beta^2) R P / (R + beta^2 P + 1e-12). "a x b c" against "a b c d e" share "a b c": P = 3/4, R = 3/5,
    beta = 5/4, F = (41/16 * 9/20) / (3/5 + 25/16 * 3/4) = 0.6508, F1 = 2/3. The published F is at most F1.
    """
    row = []
    for text, target in zip(generated, reference, strict=True):
        words, target_words = text.split(" "), target.split(" ")
        common = common_subsequence(words, target_words)
        row.append((common / len(words), common / len(target_words)))
    precision_N, recall_N = np.array(row, np.float64).reshape(-1, 2).T
    beta2_N = (precision_N / (recall_N + 1e-12)) ** 2
    f_N = (1 + beta2_N) * recall_N * precision_N / (recall_N + beta2_N * precision_N + 1e-12)
    both_N = precision_N + recall_N
    f1_N = 2 * precision_N * recall_N / np.where(both_N > 0, both_N, 1)
    return {
        "rouge_l_nmt_f": 100 * f_N,
        "rouge_l_nmt_p": 100 * precision_N,
        "rouge_l_nmt_r": 100 * recall_N,
        "rouge_l_f1": 100 * f1_N,
    }


def common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the length of the longest common subsequence: "a x b c" and "a b c d" share "a b c", so 3.

    One addition of a |right|-bit integer per word of `left`: a zero bit marks a word of `right` where the length grows.
    Source: Hyyrö, Bit-parallel LCS-length computation revisited, 2004.
    """
    place: dict[str, int] = {}
    for position, word in enumerate(right):
        place[word] = place.get(word, 0) | 1 << position
    full = (1 << len(right)) - 1
    row = full
    for word in left:
        match = row & place.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return len(right) - row.bit_count()
