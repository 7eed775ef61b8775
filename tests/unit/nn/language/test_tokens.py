import random

import numpy as np
import pytest

from rec.data.encoders import learn_byte_tokenizer, learn_tokenizer
from rec.errors import ConfigError
from rec.nn.language.tokens import LanguageTokens
from tests.support.small import TEXTS, tokenizer


@pytest.mark.parametrize("text", ["the sound is great .", "Über 3 😀  two  spaces", "[END] [PAD] the", "\n"])
def test_texts_come_back_as_they_were(text: str) -> None:
    tokens = tokenizer()
    assert tokens.decode(tokens.encode([text])[0]) == text.strip()
    assert max(tokens.encode([text])[0]) < tokens.vocabulary == tokens.user == tokens.item - 1


def test_the_same_texts_give_the_same_tokenizer_in_any_order() -> None:
    texts = [f"{a} {b}" for a in ("blue", "blues", "red", "reds") for b in ("sound", "sounds", "phone")] * 2
    found = set()
    for seed in range(3):
        random.Random(seed).shuffle(texts)
        found.add(learn_byte_tokenizer(texts, 320))
    assert len(found) == 1


def test_a_text_that_spells_the_end_does_not_end() -> None:
    tokens = tokenizer()
    assert tokens.end not in tokens.encode(["a [END] b"])[0]
    assert tokens.answers(["the sound", "the"], 100)[1][-1] == tokens.end
    assert len(tokens.answers(["the sound is great ."], 3)[0]) == 3


def test_what_stands_behind_the_end_is_no_text() -> None:
    tokens = tokenizer()
    one, other = tokens.encode(["the sound", "the price"])
    assert tokens.decode([*one, tokens.end, *other]) == "the sound"
    assert tokens.decode([tokens.end]) == ""


def test_a_tokenizer_comes_from_a_table_and_must_know_an_end() -> None:
    table = np.frombuffer(learn_byte_tokenizer(TEXTS, 300).encode(), np.uint8)
    assert LanguageTokens.from_table(table).encode(["the"]) == tokenizer().encode(["the"])
    from tokenizers import Tokenizer, models

    with pytest.raises(ConfigError, match=r"data\.encode.text.tokenizer: has none of the tokens that end a text"):
        LanguageTokens(Tokenizer(models.BPE()).to_str())
    assert LanguageTokens(learn_tokenizer(TEXTS, 100)).special("[SEP]") is not None
