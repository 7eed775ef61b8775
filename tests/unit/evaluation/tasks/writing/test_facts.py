"""Factuality against a slow reading of the definition, and by hand."""

import math

import numpy as np
import pytest

from rec.evaluation.tasks.writing.facts import METRICS, FactReader, Support

FEATURES = ("sound", "price", "strap", "sound quality", "light")
OPINIONS = ("great", "poor", "very good", "light")
WORDS = ("sound", "price", "strap", "quality", "light", "great", "poor", "very", "good", "the", "is")


def slow_read(text: str) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return statements and pairs by trying every name at every place."""
    words = text.split()
    found = []
    for kind, names in (("feature", FEATURES), ("opinion", OPINIONS)):
        for name in names:
            parts = name.split()
            found += [(i, kind, name) for i in range(len(words)) if words[i : i + len(parts)] == parts]
    pairs = set()
    for place, kind, opinion in found:
        others = [(i, name) for i, k, name in found if k == "feature" and i != place]
        if kind == "feature" or not others:
            continue
        nearest = min(abs(i - place) for i, _ in others)
        at = max(i for i, _ in others if abs(i - place) == nearest)
        pairs.add((min(name for i, name in others if i == at), opinion))
    return {(kind, name) for _, kind, name in found}, pairs


def test_shares_are_those_of_a_slow_reading(rng: np.random.Generator) -> None:
    def drawn(rows: int) -> list[str]:
        return [" ".join(rng.choice(WORDS, rng.integers(0, 9))) for _ in range(rows)]

    texts, items = drawn(120), rng.integers(-1, 7, 120).tolist()
    support = Support(FactReader(FEATURES, OPINIONS))
    support.add(items, texts, None, None)
    written, about = drawn(200), rng.integers(0, 9, 200).tolist()
    found = support.measure(about, written)
    for place, (item, text) in enumerate(zip(about, written, strict=True)):
        known = [slow_read(one) for one, of in zip(texts, items, strict=True) if of == item]
        all_stated = set().union(*(one for one, _ in known))
        all_pairs = set().union(*(pairs for _, pairs in known))
        stated, pairs = slow_read(text)
        expected = {
            "factual": len(stated & all_stated) / len(stated) if known and stated else math.nan,
            "factual_coverage": len(stated & all_stated) / len(all_stated) if all_stated else math.nan,
            "factual_pairs": len(pairs & all_pairs) / len(pairs) if known and pairs else math.nan,
            "stating": float(bool(stated)),
        }
        expected["hallucinated"] = 1 - expected["factual"]
        for name in METRICS:
            assert found[name][place] == pytest.approx(expected[name], nan_ok=True), (name, text)


def test_the_worked_example() -> None:
    support = Support(FactReader(("sound", "price", "strap"), ("great", "poor")))
    support.add([4, 4], ["great sound", "the price is poor"], ["sound", "price"], ["great", "poor"])
    found = support.measure([4], ["great price and strap"])
    assert {name: values.tolist() for name, values in found.items()} == {
        "factual": [2 / 3], "hallucinated": [1 - 2 / 3], "factual_coverage": [2 / 4], "factual_pairs": [0],
        "stating": [1],
    }  # fmt: skip
    assert support.unsupported(4, "great price and strap") == ["strap"]
    assert support.unsupported(5, "great price and strap") == []


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("great sound but a poor strap", {("sound", "great"), ("strap", "poor")}),
        ("the sound is great and the price is poor", {("sound", "great"), ("price", "poor")}),
        ("sound great price", {("price", "great")}),
        ("great", set()),
        ("light", set()),
        ("a very good sound quality", {("sound", "very good")}),
    ],
)
def test_an_opinion_is_said_of_the_nearest_feature(text: str, pairs: set[tuple[str, str]]) -> None:
    assert FactReader(FEATURES, OPINIONS).read(text).pairs == pairs


def test_labels_support_what_their_texts_do_not_name() -> None:
    support = Support(FactReader(("sound",), ("great",)))
    support.add([0, -1], ["how it plays !", "great sound"], ["sound", "sound"], ["great", "great"])
    assert support.measure([0], ["great sound"])["factual_pairs"].tolist() == [1]
    assert set(support.evidence) == {0}


def test_a_text_that_states_nothing_has_no_share_but_counts_in_coverage() -> None:
    support = Support(FactReader(("sound",), ()))
    support.add([0], ["good sound"], None, None)
    found = support.measure([0, 0], ["i like it", ""])
    assert np.isnan(found["factual"]).all()
    assert np.isnan(found["hallucinated"]).all()
    assert found["factual_coverage"].tolist() == found["stating"].tolist() == [0, 0]
