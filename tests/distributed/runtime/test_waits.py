"""A rank that has done its own work of a step tells that it waits for others."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.runtime.monitor import _Monitor, least_done
from rec.runtime.worker import Waits
from rec.train.own_time import WATCH, OwnTime, waiting


def told_of(own: OwnTime) -> list[str]:
    """Return what is told within a while in which the rank says nothing."""
    found: list[str] = []
    waits = Waits(own, lambda: found.append("waits"))
    with waits.told_after(0.05):
        time.sleep(0.5)
    return found


def test_it_is_told_once_when_the_own_work_is_done() -> None:
    own = OwnTime()
    own.start()
    own.stop()
    assert told_of(own) == ["waits"]


def test_nothing_is_told_in_own_work_or_where_no_step_is_under_way() -> None:
    own = OwnTime()
    assert told_of(own) == []
    own.start()
    assert told_of(own) == []
    own.stop()
    own.leave()
    assert told_of(own) == []


def test_it_is_told_inside_a_collective_before_the_own_work_is_done() -> None:
    own = OwnTime()
    watched = WATCH.set(own)
    try:
        own.start()
        with waiting():
            assert told_of(own) == ["waits"]
        assert told_of(own) == []
    finally:
        WATCH.reset(watched)


def test_nothing_is_told_of_a_rank_that_says_something() -> None:
    own, found = OwnTime(), list[str]()
    own.start()
    own.stop()
    waits = Waits(own, lambda: found.append("waits"))
    with waits.told_after(5.0):
        for _ in range(3):
            waits.heard()
            time.sleep(0.02)
    assert not found


def test_a_rank_that_waits_is_not_the_one_that_is_named_and_stays_silent() -> None:
    monitor = _Monitor()
    for rank in (0, 1):
        monitor.join(rank, b"")
        monitor.put(rank, {"kind": "saving", "total_step": 4})
    monitor.wait(0)
    _, silent = monitor.poll()
    assert silent[0][0] >= silent[1][0]  # silent for longest, and yet not named
    assert least_done(silent) == 1
    monitor.put(0, {"kind": "step", "total_step": 5})
    assert monitor.poll()[1][0][1]["kind"] == "step"
