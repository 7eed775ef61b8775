import numpy as np
import pytest

from rec.data.encoders import Hashing
from rec.data.modalities.drift import drift

ENCODE = Hashing(64).encode


def test_texts_that_stay_have_not_drifted():
    texts = ["A thief robs a bank.", "Sharks attack swimmers.", ""]
    found = drift(texts, texts, ENCODE)
    assert (found.items, found.only_before, found.only_after) == (2, 0, 0)
    assert (found.same, found.overlap, found.cosine) == (1.0, 1.0, pytest.approx(1.0))
    assert found.others < 0.5


def test_drift_is_told_in_words_vectors_and_lengths():
    found = drift(
        ["thief robs bank", "", "gone"], ["thief robs a train quickly", "new", ""], ENCODE, ([1, 0, 0], [0.5, 0, 0])
    )
    assert (found.items, found.only_before, found.only_after, found.same) == (1, 1, 1, 0.0)
    assert found.overlap == 2 / 5  # thief, rob of thief, rob, bank, train, quick
    assert (found.words_before, found.words_after) == (3, 5)
    assert 0 < found.cosine < 1
    assert (found.faithfulness_before, found.faithfulness_after) == (1.0, 0.5)


def test_texts_of_no_common_item_have_no_drift():
    found = drift(["a", ""], ["", "b"], lambda texts: np.zeros((len(texts), 2)))
    assert (found.items, found.only_before, found.only_after) == (0, 1, 1)
