"""Features and opinions by rules, in made-up sentences."""

import numpy as np
import pytest

from rec.data.reviews.finder import Candidate, FindConfig, RuleFinder, chosen

FINDER = RuleFinder(FindConfig())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It has a clear sound.", [("sound", "clear", 1)]),
        ("The sound is very clear!", [("sound", "clear", 1)]),
        ("The sound is clear, and the strap feels cheap.", [("sound", "clear", 1), ("strap", "cheap", -1)]),
        ("The strap is not very sturdy.", [("strap", "sturdy", -1)]),
        ("Never had a bad cable so far.", [("cable", "bad", 1)]),
        ("It doesn't have a clear screen.", [("screen", "clear", -1)]),
        ("It doesn\u2019t have a clear screen.", [("screen", "clear", -1)]),
        ("Rock &amp; roll needs solid tuners.", [("tuners", "solid", 1)]),
        ("It is good, and that is nice.", []),  # of words that are never features
        ("I bought it for my brother last week.", []),
        ("Nice cable", []),  # too short
        ("Good price " + "and then it goes on " * 6, []),  # too long
    ],
)
def test_features_are_found_beside_an_opinion_or_before_a_verb_and_turned_by_negation(
    text: str, found: list[tuple[str, str, int]]
) -> None:
    assert [(one.feature, one.opinion, one.score) for one in FINDER.candidates(text)] == found


def test_sentences_are_lower_case_tokens_divided_by_one_blank() -> None:
    text = "Great cable(really).It has a 2nd plug; the plug is solid...\nA nice   strap came too?!"
    assert [one.sentence for one in FINDER.candidates(text)] == [
        "great cable ( really ) .",
        "the plug is solid .",
        "a nice strap came too ?",
    ]
    assert list(FINDER.sentences("It has a 2nd plug.")) == [["it", "has", "a", "2", "nd", "plug", "."]]


def test_lengths_are_told_by_the_config() -> None:
    loose = RuleFinder(FindConfig(minimum_tokens=2, maximum_tokens=3))
    assert loose.candidates("Nice cable") == [Candidate("nice cable", "cable", "nice", 1)]
    assert loose.candidates("It is a nice cable") == []


def test_the_first_sentence_with_a_frequent_feature_and_its_most_frequent_one_is_chosen() -> None:
    #          0: rare, then two frequent ones in the next sentence    1: none    2: two of the same count
    review_C = np.array([0, 0, 0, 0, 1, 2, 2])
    sentence_C = np.array([0, 1, 1, 2, 0, 0, 0])
    count_C = np.array([4, 6, 9, 50, 1, 7, 7])
    assert chosen(review_C, sentence_C, count_C, 5).tolist() == [2, 5]
    assert chosen(review_C, sentence_C, count_C, 0).tolist() == [0, 4, 5]
    assert chosen(review_C, sentence_C, count_C, 99).tolist() == []
