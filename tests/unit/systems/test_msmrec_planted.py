"""How planted preferences, and switches of them, are told from weights, by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rec.seeds import generator
from rec.systems.msmrec.planted import in_words, recovery, switches

FIRST = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
LATER = [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
ROWS = {
    "subject": np.arange(4),
    "length": np.full(4, 4),
    "gate": np.array([[0.6, 0.2, 0.2], [0.5, 0.3, 0.2], [0.4, 0.2, 0.4], [0.2, 0.5, 0.3]]),
    "gate_first": np.array([[0.6, 0.2, 0.2], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.2, 0.6, 0.2]]),
}


def data(**columns: Any) -> Any:
    return SimpleNamespace(users=pa.table(columns))


def test_weights_are_held_against_what_is_followed() -> None:
    truth = recovery(ROWS, data(followed=FIRST))
    assert truth is not None
    # The heaviest of the users: first (right), first (wrong), first and last alike (the first is taken, wrong), second.
    assert truth["found"] == 0.5
    assert truth["weight"] == pytest.approx((0.6 + 0.3 + 0.4 + 0.5) / 4)
    assert truth["chance"] == pytest.approx(1 / 3)
    assert recovery(ROWS, data(age=[1, 2, 3, 4])) is None


def test_users_who_switch_are_judged_by_halves_and_left_out_elsewhere() -> None:
    planted, rng = data(followed=FIRST, followed_later=LATER), generator(0, "switches")
    truth = recovery(ROWS, planted)
    assert truth is not None
    assert truth["found"] == 0.5  # of the first two
    assert truth["weight"] == pytest.approx((0.6 + 0.3) / 2)
    moved = switches(ROWS, planted, 100, rng)
    assert moved is not None
    # Second halves: (0.6, 0.2, 0.2) and (0.2, 0.4, 0.4); what is followed later goes from 0.2 to 0.6 and to 0.4.
    assert (moved["users"], moved["first"], moved["seen"]) == (2, 1.0, 1.0)
    assert moved["second"] == 0.5
    assert moved["gained"]["mean"] == pytest.approx(0.3)
    texts = in_words(truth, moved)
    assert texts[1].startswith("2 users follow other modalities from the middle of their history on. 100.0% of them")
    assert switches(ROWS, data(followed=FIRST), 100, rng) is None
    assert switches(ROWS, data(followed=FIRST, followed_later=FIRST), 100, rng) is None
