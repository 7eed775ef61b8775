"""Parts of a loss are told in words, which every shipped system has for all of its own."""

import pytest

from rec.report.loss_terms import in_words
from rec.shipped import shipped_for
from rec.strict import resolve


def test_terms_have_words_and_their_layer() -> None:
    told = in_words(["ss", "balance/0", "something_of_mine"], {"ss": "sampled softmax", "balance/*": "even use"})
    assert told == "ss: sampled softmax; balance/0: even use (mixture layer 0)"


@pytest.mark.parametrize("path", shipped_for("system"))
def test_every_shipped_system_has_words(path: str) -> None:
    assert resolve(path).loss_terms
