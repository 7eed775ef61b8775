"""Which rank is named as slow, and when."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.runtime.straggler import Stragglers
from rec.train.own_time import WATCH, OwnTime, waiting


def told(found: Stragglers, milliseconds: list[float], seconds: range) -> list[str]:
    """Return what is said while each rank takes so long for its own work, ten steps a second."""
    said = []
    for second in seconds:
        for rank, own in enumerate(milliseconds):
            event = {"kind": "step", "rank": rank, "own_s": own / 100, "own_steps": 10}
            said.append(found.take(event, float(second)))
    return [text for text in said if text]


def ranks(count: int) -> Stragglers:
    found = Stragglers()
    for rank in range(count):
        found.take({"kind": "placed", "rank": rank, "node": f"10.0.0.{rank + 2}"})
    return found


def test_a_rank_at_a_tenth_of_the_speed_is_named_once_with_its_node() -> None:
    found = ranks(3)
    assert told(found, [10, 100, 12], range(60)) == [
        "rank 1 on 10.0.0.3 is slow, and all wait for it: its own work of a step takes 100 ms, that of the others 11 ms"
    ]


def test_a_rank_that_is_as_quick_again_is_told_and_named_anew() -> None:
    found = ranks(2)
    assert len(told(found, [10, 100], range(30))) == 1
    assert told(found, [10, 10], range(30, 60)) == ["rank 1 is no longer slow: 10 ms, the others 10 ms"]
    assert "rank 1 on 10.0.0.3 is slow" in told(found, [10, 100], range(60, 90))[0]


@pytest.mark.parametrize("milliseconds", [[10, 12, 25], [0.1, 1.5, 0.1], [10]])
def test_what_is_usual_is_not_told(milliseconds: list[float]) -> None:
    assert told(ranks(len(milliseconds)), milliseconds, range(60)) == []


def test_what_others_are_waited_for_is_no_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 5.0, 6.0])  # starts, waits from 2 to 5, ends at 6; 0 is a time like any other
    monkeypatch.setattr("rec.train.own_time.time.perf_counter", lambda: next(clock) + 1)
    own = OwnTime()
    token = WATCH.set(own)
    own.start()
    with waiting():
        pass
    own.stop()
    WATCH.reset(token)
    own.stop()  # of the second microbatch
    assert own.take() == (3.0, 1)
    assert own.take() == (0.0, 0)
