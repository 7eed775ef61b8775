"""Random faults: their order, and what is read from a run's events.

Runs are in tests/distributed/runtime/test_local_faults.py.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

pytest.importorskip("psutil", reason="needs the extra `cluster`")

from rec.benchmarks import chaos
from rec.benchmarks.chaos.faults import FAULTS, order
from rec.benchmarks.chaos.training import done_again, gone_before
from rec.errors import TrainingError


def events(*words: str) -> list[dict[str, Any]]:
    """Return events written as "step 3"."""
    found = (word.split() for word in words)
    return [{"kind": kind, ("step" if kind == "ready" else "total_step"): int(step)} for kind, step in found]


def test_every_kind_of_fault_comes_before_any_comes_again() -> None:
    names = order(len(FAULTS) + 2, random.Random(3))
    assert sorted(names[: len(FAULTS)]) == sorted(FAULTS)
    assert names == order(len(FAULTS) + 2, random.Random(3))
    assert names != order(len(FAULTS) + 2, random.Random(4))


def test_steps_beyond_the_last_checkpoint_are_done_again() -> None:
    whole = ["ready 0", "step 20", "saving 20", "step 22", "saved 20", "step 27", "ready 20"]
    assert done_again(events(*whole)) == [(7, 7)]
    # The checkpoint of step 40 was not whole yet when all ended at step 43.
    half = [*whole, "step 28", "saving 40", "step 43", "ready 20"]
    assert done_again(events(*half)) == [(7, 7), (23, 20)]


def test_a_checkpoint_that_was_told_must_not_be_passed_over() -> None:
    assert gone_before(events("ready 0", "saving 20", "saved 20", "saving 40", "ready 20")) == []
    (told,) = gone_before(events("ready 0", "saving 20", "saved 20", "ready 10"))
    assert told == "went on from step 10 though the checkpoint of step 20 was there"


def test_runs_are_compared_epoch_by_epoch() -> None:
    first = {"total_step": 5, "metric": "hit", "hit": 0.5, "loss/all": 2.0}
    found = chaos.apart([first, first | {"hit": 0.52}], [first, first | {"loss/all": 2.5}])
    assert found == pytest.approx((0.2, 0.02, 0.02))
    assert chaos.apart([first | {"hit": 0.52}, first], [first, first]) == pytest.approx((0.0, 0.02, 0.0))
    with pytest.raises(TrainingError, match="measured at other steps: 1 times, expected 2"):
        chaos.apart([first], [first, first])
