import numpy as np
import pytest

from rec.data.generated.catalogue import CatalogueConfig, item_rows
from rec.data.modalities.faithfulness import Checker
from rec.data.modalities.rarity import Rarity
from rec.data.modalities.thresholds import choose_thresholds, plant, threshold_of

NAMES = ("narrative", "visual")


def test_a_threshold_lies_in_the_gap_that_finds_most():
    found = threshold_of(np.array([0.5, 0.8, 0.9, 1.0]), np.array([0.1, 0.3, 0.6, 0.2]), 0.25)
    # 0.6 is found at the price of 0.5, one of four faithful ones
    assert (found.value, found.found, found.false_alarms) == (pytest.approx((0.6 + 0.8) / 2), 1.0, 0.25)
    assert found.area == 15 / 16


def test_a_threshold_keeps_to_its_false_alarms():
    found = threshold_of(np.array([0.5, 0.8, 0.9, 1.0]), np.array([0.1, 0.3, 0.6, 0.2]), 0.1)
    assert (found.value, found.found, found.false_alarms) == (pytest.approx(0.4), 0.75, 0.0)


def test_scores_that_tell_nothing_have_half_the_area():
    assert threshold_of(np.ones(5), np.ones(3), 0.05).area == 0.5


def test_no_scores_are_refused():
    with pytest.raises(ValueError, match="0 faithful and 1 invented scores"):
        threshold_of(np.zeros(0), np.zeros(1), 0.05)


def test_what_is_planted_is_one_sentence_of_another_item_of_the_group(rng: np.random.Generator):
    rows = [[f"One {n}. Two {n}.", ""] for n in range(40)]
    planted = plant(rows, rng, [f"group {n % 2}" for n in range(40)])
    for n, (text, none) in enumerate(planted):
        assert none is None
        if text is not None:
            theirs = set(text.split(". ")) - set(rows[n][0].split(". "))
            other = int(text.replace(f" {n}.", "").strip(" .OneTwo") or n)
            assert theirs
            assert other % 2 == n % 2
            assert other != n
    assert sum(row[0] is not None for row in planted) > 30


def test_inventions_in_generated_texts_are_found(rng: np.random.Generator):
    table = item_rows(CatalogueConfig(interactions=2000, items=400, modalities=NAMES))
    rows = [list(row) for row in zip(*(table[name].to_pylist() for name in NAMES), strict=True)]
    found = choose_thresholds(Checker(Rarity.learned(rows)), rows, rows, 0.05, rng)
    for one in found:
        assert one is not None
        assert one.found >= 0.95
        assert one.false_alarms <= 0.05


def test_a_modality_without_texts_has_no_threshold(rng: np.random.Generator):
    rows = [[f"Number {n} is here.", ""] for n in range(9)]
    one, none = choose_thresholds(Checker(Rarity()), rows, [[row[0]] for row in rows], 0.05, rng)
    assert one is not None
    assert none is None


def test_what_the_sources_say_anyway_is_no_invention(rng: np.random.Generator):
    rows = [["A comedy of 1995."], ["A drama of 1995."]] * 4
    sources = [["comedy drama 1995"]] * 8
    assert choose_thresholds(Checker(Rarity()), rows, sources, 0.05, rng) == [None]
