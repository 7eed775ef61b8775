"""Numbers of the report by hand."""

import io

import numpy as np
import pytest

from rec.data.prepared import Prepared
from rec.progress import Progress, duration
from rec.systems.msmrec.planted import recovery
from rec.systems.msmrec.report import halves_distance


def test_recovery_of_perfect_and_of_flat_weights(planted: Prepared) -> None:
    followed = np.array(planted.users["followed"].to_pylist(), dtype=float)
    user = np.arange(len(followed))
    perfect = recovery({"subject": user, "gate": followed / followed.sum(1, keepdims=True)}, planted)
    assert perfect is not None
    assert perfect["found"] == 1.0
    assert perfect["correlation"] > 0.85
    noise = np.random.default_rng(0).random(followed.shape)
    blind = recovery({"subject": user, "gate": noise}, planted)
    assert blind is not None
    assert blind["found"] == pytest.approx(blind["chance"], abs=0.1)  # 300 users: standard error 0.03


def test_halves_that_are_alike_have_no_distance_and_opposite_ones_have_one() -> None:
    gate = np.array([[0.5, 0.5]])
    rows = {"gate": gate, "gate_first": np.array([[1.0, 0.0]]), "gate_even": gate, "length": np.array([4])}
    assert halves_distance(rows) == pytest.approx({"in_time": 1.0, "every_other": 0.0})


def test_progress_shows_plain_lines_with_the_time_left() -> None:
    stream = io.StringIO()
    line = Progress("step", 10, stream)
    line.show(1, "loss 2.0")
    line.show(2, "loss 1.5")  # too soon after the first
    line.show(5, "loss 1.0", force=True)
    shown = stream.getvalue().splitlines()
    assert shown[0] == "step 1/10 loss 2.0"
    assert shown[1].startswith("step 5/10 loss 1.0 left ")
    assert [duration(s) for s in (5, 65, 7260)] == ["5 s", "1 min 05 s", "2 h 01 min"]
