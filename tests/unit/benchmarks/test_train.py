"""The step of training beside bare products."""

import pytest

from rec.benchmarks import train
from rec.data.prepared import Prepared


def test_the_training_benchmark_measures_a_step(planted: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "REPEATS", 2)
    step, speed = train.measure(planted)
    assert step.value > 0
    assert speed.value == pytest.approx(128 / step.value)
    assert step.physical
    assert step.limit_spread is not None
    assert step.limit_spread[0] <= (step.limit or 0) <= step.limit_spread[1]
