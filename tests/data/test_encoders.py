"""Encoders of texts of which nothing can be learned, or hardly anything."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from rec.data.encoders import Tfidf, Tokens, learn_tokenizer
from tests.data.own import own_tables, prepared

WITHOUT_WORDS = [
    ["\U0001f600 \U0001f389"] * 60,
    ["a", "b c"],
    ["!?", "...", "-"],
    [" \n\t"],
    [""],
    [],
    [f"word{n}" for n in range(60)],
    ["\ud800 \0"],
]
WITH_WORDS = [
    ["salt"],
    ["salt"] * 5,
    ["the", "and the", "of"],
    ["salt soup"],
    ["salt", "sugar"],
    ["salt\ud83d soup", "so\0up salt"],
    ["x" * 1_000_000, "salt soup"],
    ["\U0001f600 a", "sweet \U0001f600 cake"],
]


@pytest.mark.parametrize("texts", WITHOUT_WORDS)
def test_texts_without_a_word_give_zeros_and_a_note(texts: list[str]) -> None:
    found = Tfidf(texts, 4)
    assert found.note.startswith("tfidf: no word of two letters to learn from")
    assert found.encode([*texts, "salt"]).tolist() == [[0.0] * 4] * (len(texts) + 1)
    assert found.identity() != Tfidf(["salt soup"], 4).identity()


@pytest.mark.parametrize("texts", WITH_WORDS)
def test_a_small_vocabulary_fills_the_components_that_it_has(texts: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Tfidf(texts, 6)
    assert found.note == ""
    vector = found.encode([*texts, "unheard"])
    assert vector.shape == (len(texts) + 1, 6)
    there = [any(len(word) > 1 for word in text.replace("\0", " ").replace("\ud83d", " ").split()) for text in texts]
    np.testing.assert_allclose(np.linalg.norm(vector, axis=1), [*there, False], atol=1e-6)
    assert found.encode([]).shape == (0, 6)


def test_two_words_of_two_texts_stay_apart() -> None:
    vector = Tfidf(["salt", "sugar"], 4).encode(["salt", "sugar", "salt sugar"])
    np.testing.assert_allclose(vector @ vector[0], [1, 0, 0.5**0.5], atol=1e-6)


@pytest.mark.parametrize("texts", WITHOUT_WORDS + WITH_WORDS)
def test_a_tokenizer_is_learned_from_whatever_there_is(texts: list[str]) -> None:
    tokens = Tokens(learn_tokenizer(texts, 100), 8)
    found = tokens.encode([*texts, "unheard", "x" * 1_000_000, "\ud800"])
    assert found.shape == (len(texts) + 3, 8)
    assert (found[:, 0] == tokens.tokenizer.token_to_id("[CLS]")).all()
    assert found.max() < tokens.tokenizer.get_vocab_size()


def test_a_word_that_no_tokenizer_looks_at_is_not_learned() -> None:
    assert "y" * 101 not in learn_tokenizer(["y" * 101] * 3, 100)
    assert "y" * 100 in learn_tokenizer(["y" * 100] * 3, 100)


@pytest.mark.parametrize("text", ["\U0001f600", "a", "?!"])
def test_a_data_set_of_texts_without_words_is_prepared_and_told(text: str, tmp_path: Path) -> None:
    tfidf = {"encoder": "tfidf", "width": 4}
    data = prepared(tmp_path / "data", own_tables(tmp_path, words=[text] * 10, columns={"user_text": []}, text=tfidf))
    notes = data.manifest["encoded"]["items"]["notes"]
    assert [count for note, count in notes.items() if note.startswith("tfidf: no word")] == [10]
    assert not data.array("item_text").any()
    assert data.array("item_present")[1:, 0].all()
    assert (data.array("item_tokens")[1:, 0] > 0).all()


def test_the_same_texts_give_the_same_tokenizer_and_unknown_words_are_spelt() -> None:
    texts = [f"likes salt number {n}" for n in range(10)] * 2
    first = learn_tokenizer(texts, 60)
    assert all(learn_tokenizer(texts, 60) == first for _ in range(5))
    tokens = Tokens(first, 12)
    assert tokens.tokenizer.encode("Salt lake").tokens[:7] == ["[CLS]", "salt", "l", "##a", "##k", "##e", "[SEP]"]
    assert tokens.encode(["salt", ""])[:, 0].tolist() == [2, 2]
