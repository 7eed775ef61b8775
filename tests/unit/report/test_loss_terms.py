"""Parts of a loss are told in words."""

from rec.report.loss_terms import in_words


def test_terms_have_words_and_their_layer() -> None:
    told = in_words(["ss", "balance/0", "something_of_mine"])
    assert told.startswith("ss: sampled softmax")
    assert told.endswith("balance/0: how unevenly the mixture is used, 1 is even (mixture layer 0)")
