"""BLEU against arithmetic, sacrebleu and invariants."""

import numpy as np
import pytest

from rec.evaluation.tasks.writing.bleu import bleu, bleu_smooth, bleu_statistics
from tests.support.texts import random_texts


def words(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


def test_statistics_of_a_worked_example() -> None:
    assert bleu_statistics(words("a a b"), words("a b c")).tolist() == [[2, 1, 0, 0, 3, 2, 1, 0, 3, 3]]


def test_bleu_of_a_worked_example() -> None:
    total = bleu_statistics(words("a a b"), words("a b c"))[0]
    assert bleu(total, order=1) == pytest.approx(100 * 2 / 3)
    assert bleu(total, order=2) == pytest.approx(100 * (2 / 3 * 1 / 2) ** 0.5)
    assert bleu(total, order=4) == 0
    assert bleu_smooth(total, order=1) == pytest.approx(100 * 3 / 4)
    assert bleu_smooth(total, order=4) == pytest.approx(100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 1) ** 0.25)


def test_short_outputs_pay_the_brevity_penalty() -> None:
    total = bleu_statistics(words("a b"), words("a b c d e"))[0]
    assert bleu(total, order=1) == pytest.approx(100 * np.exp(1 - 5 / 2))
    assert bleu(bleu_statistics(words("a b c d"), words("a b"))[0], order=1) == pytest.approx(100 * 2 / 4)


def test_the_corpus_value_comes_from_summed_counts_not_from_means() -> None:
    total = bleu_statistics(words("a", "b c d"), words("a", "x y d")).sum(0)
    assert bleu(total, order=1) == pytest.approx(100 * (1 + 1) / (1 + 3))


def test_identical_texts_give_100() -> None:
    texts = words("the strings sound very bright", "a great pedal for the price")
    total = bleu_statistics(texts, texts).sum(0)
    assert bleu(total, order=1) == bleu(total, order=4) == pytest.approx(100)
    assert bleu_smooth(total, order=4) == pytest.approx(100)


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_an_empty_corpus_gives_0(texts: list[str]) -> None:
    total = bleu_statistics(words(*texts), words(*("a b" for _ in texts))).sum(0)
    assert bleu(total, order=1) == bleu(total, order=4) == bleu_smooth(total, order=4) == 0


def test_a_row_shorter_than_the_order_adds_nothing_to_it() -> None:
    long, short = bleu_statistics(words("a b c d e", "a b"), words("a b c d e", "a b"))
    assert short.tolist() == [2, 1, 0, 0, 2, 1, 0, 0, 2, 2]
    assert bleu(long + short, order=4) == pytest.approx(100)


def test_smooth_and_plain_agree_as_counts_grow() -> None:
    total = bleu_statistics(*random_texts(np.random.default_rng(0), 200)).sum(0)
    gap = [bleu_smooth(total * times, order=4) - bleu(total * times, order=4) for times in (1, 10, 1000)]
    assert abs(gap[0]) > abs(gap[1]) > abs(gap[2])
    assert abs(gap[2]) < 1e-3


def test_agrees_with_sacrebleu(rng: np.random.Generator) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    generated, reference = random_texts(rng, 300)
    total = bleu_statistics(generated, reference).sum(0)
    for order in (1, 2, 4):
        oracle = sacrebleu.BLEU(max_ngram_order=order, tokenize="none", smooth_method="none", force=True)
        score = oracle.corpus_score([" ".join(t) for t in generated], [[" ".join(t) for t in reference]])
        assert bleu(total, order=order) == pytest.approx(score.score)
    assert total[:8].tolist() == [*score.counts, *score.totals]
