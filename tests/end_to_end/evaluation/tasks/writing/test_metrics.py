"""All metrics of texts together: groups, resamples and what is missing."""

import time

import numpy as np
import pytest

from rec.errors import DataError
from rec.evaluation.tasks.writing.metrics import distinct_words, feature_match, measure, summary
from tests.support.texts import WORDS, random_texts

FEATURES = ("sound", "price", "tone", "great sound")


def corpus(rng: np.random.Generator, rows: int) -> tuple[list[str], list[str], list[str]]:
    generated, reference = ([" ".join(text) for text in texts] for texts in random_texts(rng, rows))
    return generated, reference, [str(f) for f in rng.choice(FEATURES, rows)]


def test_every_metric_of_two_rows() -> None:
    values = summary(
        measure(
            ["great sound for the price", "great sound for the price"],
            ["great sound for the price", "my strap"],
            feature=["sound", "strap"],
            features=["sound", "price", "strap", "tone"],
        )
    )
    expected = {
        "bleu1": 100 * 5 / 10,
        "bleu4": 100 * (5 / 10 * 4 / 8 * 3 / 6 * 2 / 4) ** 0.25,
        "bleu1_smooth": 100 * 6 / 11,
        "rouge1_f": 100 / 2,
        "rouge_l_f1": 100 / 2,
        "usr": 1 / 2,
        "usn": 1,
        "fmr": 1 / 2,
        "fcr": 2 / 4,
        "div": 2 / 1,
        "distinct1_corpus": 5 / 10,
        "distinct2_corpus": 4 / 8,
        "distinct1_sentence": 1,
    }
    assert {name: values[name].value for name in expected} == pytest.approx(expected, rel=1e-6)


def test_a_feature_matches_as_one_word_only() -> None:
    words = ["great sound .".split()] * 3
    assert feature_match(words, ["sound", "so", "great sound"]).tolist() == [1, 0, 0]


def test_distinct_words_of_a_row() -> None:
    words = ["a b a".split(), [], ["a"]]
    assert distinct_words(words, order=1).tolist() == [2 / 3, 0, 1]
    assert distinct_words(words, order=2).tolist() == [1, 0, 0]


def test_weights_are_repeated_rows(rng: np.random.Generator) -> None:
    columns = corpus(rng, 60)
    weight_N = rng.integers(0, 3, 60)
    generated, reference, feature = ([texts[n] for n in np.repeat(np.arange(60), weight_N)] for texts in columns)
    repeated = summary(measure(generated, reference, feature=feature, features=FEATURES))
    weighted = summary(measure(*columns[:2], feature=columns[2], features=FEATURES), weight_N.astype(float))
    assert weighted.keys() == repeated.keys()
    for name, value in weighted.items():
        assert value.value == pytest.approx(repeated[name].value, abs=1e-9), name
        assert value.count == repeated[name].count, name


def test_a_group_is_scored_with_all_features_of_the_corpus(rng: np.random.Generator) -> None:
    generated, reference, feature = corpus(rng, 40)
    group = summary(measure(generated, reference, feature=feature, features=FEATURES), np.arange(40) < 9.0)
    alone = summary(measure(generated[:9], reference[:9], feature=feature[:9], features=FEATURES))
    for name, value in group.items():
        assert value.value == pytest.approx(alone[name].value, abs=1e-9), name


def test_empty_texts_are_scored_not_dropped() -> None:
    values = summary(measure(["", "a b"], ["a b", "a b"], feature=["a", "a"], features=["a"]))
    assert values["rouge1_f"].value == pytest.approx(100 / 2)
    assert values["bleu1"].value == pytest.approx(100 * np.exp(1 - 4 / 2))
    assert values["fmr"].value == 1 / 2
    assert values["usr"].value == 1
    assert summary(measure([""], ["a b"]))["bleu4"].value == 0


def test_without_features_their_metrics_have_no_value() -> None:
    values = summary(measure(["a b"], ["a b"]))
    for name in ("fmr", "fcr", "div"):
        assert (values[name].value, values[name].note) == (None, "no features are given")


def test_columns_of_other_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="reference: found 1 row, expected 2"):
        measure(["a", "b"], ["a"])
    with pytest.raises(DataError, match="feature: found 1 row, expected 2"):
        measure(["a", "b"], ["a", "b"], feature=["a"])


@pytest.mark.slow
@pytest.mark.slow
def test_a_hundred_thousand_sentences_take_under_20_s_of_one_core(rng: np.random.Generator) -> None:
    words = np.array([*WORDS, *(f"word{n}" for n in range(5000))])
    generated, reference = ([" ".join(row) for row in rng.choice(words, (100_000, 15))] for _ in range(2))
    feature = [str(f) for f in rng.choice(words, 100_000)]
    start = time.process_time()
    summary(measure(generated, reference, feature=feature, features=set(words[:500].tolist())))
    assert time.process_time() - start < 20
