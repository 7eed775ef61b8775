"""ROUGE against arithmetic, a slow subsequence, rouge-score and invariants."""

import numpy as np
import pytest

from rec.evaluation.tasks.writing.rouge import common_subsequence, rouge_l, rouge_n
from tests.support.texts import random_texts


def joined(texts: list[list[str]]) -> list[str]:
    return [" ".join(text) for text in texts]


def one(column: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value[0]) for name, value in column.items()}


def test_rouge_1_of_a_worked_example() -> None:
    precision = recall = 2 / 3
    f = 2 * precision * recall / (precision + recall + 1e-8)
    assert one(rouge_n(["a b b d"], ["a b c"], order=1)) == pytest.approx(
        {"rouge1_f": 100 * f, "rouge1_p": 100 * precision, "rouge1_r": 100 * recall}
    )


def test_rouge_2_of_a_worked_example() -> None:
    column = one(rouge_n(["a b c d"], ["a b x c d e"], order=2))  # ab, cd of ab bc cd and of ab bx xc cd de
    assert (column["rouge2_p"], column["rouge2_r"]) == pytest.approx((100 * 2 / 3, 100 * 2 / 5))


def test_repeated_ngrams_do_not_raise_the_score() -> None:
    assert one(rouge_n(["a b a b a b"], ["a b c"], order=2)) == one(rouge_n(["a b a"], ["a b c"], order=2))


def test_double_blanks_hold_an_empty_word_and_a_newline_belongs_to_one() -> None:
    assert one(rouge_n(["a  b"], ["a b"], order=1))["rouge1_p"] == pytest.approx(100 * 2 / 3)  # a, "", b
    assert one(rouge_n(["a\nb"], ["a b"], order=1))["rouge1_p"] == 0


def test_a_text_without_ngrams_gives_0() -> None:
    assert set(one(rouge_n(["a"], ["a b"], order=2)).values()) == {0}
    assert set(one(rouge_n(["a b"], ["a"], order=2)).values()) == {0}
    assert set(one(rouge_l([""], ["a b"])).values()) == {0}


def test_rouge_l_of_a_worked_example() -> None:
    precision, recall, beta = 3 / 4, 3 / 5, 5 / 4
    f = (1 + beta**2) * recall * precision / (recall + beta**2 * precision)
    assert one(rouge_l(["a x b c"], ["a b c d e"])) == pytest.approx(
        {
            "rouge_l_nmt_f": 100 * f,
            "rouge_l_nmt_p": 100 * precision,
            "rouge_l_nmt_r": 100 * recall,
            "rouge_l_f1": 100 * 2 / 3,
        }
    )


def slow_subsequence(left: list[str], right: list[str]) -> int:
    length = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, word in enumerate(left):
        for j, other in enumerate(right):
            length[i + 1][j + 1] = length[i][j] + 1 if word == other else max(length[i][j + 1], length[i + 1][j])
    return length[-1][-1]


def test_common_subsequence_agrees_with_the_table_of_lengths(rng: np.random.Generator) -> None:
    for _ in range(300):
        alphabet = "abcdefgh"[: rng.integers(1, 9)]
        left, right = (list(rng.choice(list(alphabet), rng.integers(0, 90))) for _ in range(2))
        assert common_subsequence(left, right) == slow_subsequence(left, right)


def test_published_rouge_l_is_at_most_the_usual_f1(rng: np.random.Generator) -> None:
    column = rouge_l(*map(joined, random_texts(rng, 500)))
    assert (column["rouge_l_nmt_f"] <= column["rouge_l_f1"] + 1e-9).all()
    assert (column["rouge_l_nmt_f"] < column["rouge_l_f1"] - 1).any()


class Blanks:
    """Cuts at blanks, as rouge-score asks a tokenizer to."""

    def tokenize(self, text: str) -> list[str]:
        return text.split(" ")


def test_agrees_with_rouge_score(rng: np.random.Generator) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(
        ["rouge1", "rouge2", "rougeL"], tokenizer=Blanks()
    )
    generated, reference = map(joined, random_texts(rng, 400))
    column = (
        rouge_l(generated, reference) | rouge_n(generated, reference, order=1) | rouge_n(generated, reference, order=2)
    )
    compared = {"rouge1": 0, "rouge2": 0}
    for row, (text, target) in enumerate(zip(generated, reference, strict=True)):
        oracle = scorer.score(target, text)
        ours = [column[f"rouge_l_{name}"][row] for name in ("nmt_p", "nmt_r", "f1")]
        assert ours == pytest.approx([100 * v for v in oracle["rougeL"]])
        for order in (1, 2):
            grams = [list(zip(*(t.split(" ")[i:] for i in range(order)), strict=False)) for t in (text, target)]
            if any(len(set(g)) < len(g) for g in grams):
                continue  # The library counts repeated n-grams, the published form does not.
            compared[f"rouge{order}"] += 1
            ours = [column[f"rouge{order}_{kind}"][row] for kind in "prf"]
            assert ours == pytest.approx([100 * v for v in oracle[f"rouge{order}"]], rel=1e-6)
    assert min(compared.values()) > 40
