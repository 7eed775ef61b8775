"""Actions are timed in turns, after one round to warm up."""

import pytest

from rec.benchmarks import timing
from rec.benchmarks.timing import Times, cpu_s, in_turns, median_s


def test_actions_take_turns_and_the_first_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def action(name: str, seconds: list[float]) -> None:
        calls.append(name)
        now[0] += seconds.pop(0)

    a, b = [9.0, 1.0, 2.0, 6.0], [9.0, 4.0, 8.0, 5.0]
    first, second = in_turns([lambda: action("a", a), lambda: action("b", b)], 3)
    assert calls == ["a", "b"] * 4
    assert (first.rounds, second.rounds) == ((1.0, 2.0, 6.0), (4.0, 8.0, 5.0))
    assert (first.median, second.median) == (2.0, 5.0)


def test_three_rounds_are_made_however_little_time_there_is() -> None:
    (times,) = in_turns([lambda: None], 9, budget_s=0.0)
    assert len(times.rounds) == 3


def test_times_scale_with_the_work() -> None:
    assert Times(rounds=(1.0, 2.0)).scaled(3).rounds == (3.0, 6.0)


def test_the_median_leaves_warming_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now, seconds = [0.0], [50.0, 1.0, 3.0, 2.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def action() -> None:
        now[0] += seconds.pop(0)

    assert median_s(action, 3) == 2.0


def test_waiting_takes_no_time_of_the_processor() -> None:
    (waiting,) = in_turns([lambda: timing.time.sleep(0.05)], 3, clock=cpu_s)
    (working,) = in_turns([lambda: sum(range(200_000))], 3, clock=cpu_s)
    assert waiting.median < 0.02
    assert working.median > 0
