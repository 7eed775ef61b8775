"""How texts are cut into words."""

import pytest

from rec.evaluation.tasks.writing.words import first_words, ngrams, spaced, until_end


def test_nothing_after_the_first_end_word_is_kept() -> None:
    assert until_end("good  strings <eos> good <eos>") == "good strings"
    assert until_end("<eos> good") == ""
    assert until_end("good strings") == "good strings"


def test_references_are_cut_to_a_number_of_words() -> None:
    assert first_words("a b  c", number=2) == "a b"
    assert first_words("a", number=15) == "a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's (very) good...don't wait!!", "It 's ( very ) good . do n't wait !"),
        ("we've, they're; I'd:: you'll I'm", "we 've , they 're . I 'd , you 'll I 'm"),
        ("what??  now ?!", "what ? now ? !"),
        (",,;;", ", ."),
        ("  ", ""),
    ],
)
def test_signs_and_suffixes_stand_alone(text: str, expected: str) -> None:
    assert spaced(text) == expected


def test_ngrams_keep_repeated_runs() -> None:
    assert list(ngrams("a b a b".split(), 2)) == [("a", "b"), ("b", "a"), ("a", "b")]
    assert list(ngrams("a b".split(), 3)) == []
