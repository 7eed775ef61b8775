"""The benchmark of stage 1, on few pairs."""

from pathlib import Path

import pytest

from rec.benchmarks import pairs
from rec.data.prepare import prepare
from rec.data.runner import InProcess


@pytest.mark.parametrize("phase", pairs.PHASES)
def test_an_epoch_is_told_beside_its_products(tmp_path: Path, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "BATCH", 64)
    monkeypatch.setattr(pairs, "STEPS", 1)
    monkeypatch.setattr(pairs, "REPEATS", 3)
    config = pairs.config_of(str(tmp_path), 1000, {})
    prepare(config.data, InProcess(), lambda _: None)
    rows = pairs.epoch("small", config, phase)
    assert len(rows) == 2
    steps = -(-int(0.8 * 1000) // 64)
    assert abs(int(rows[0].name.split("epoch of ")[1].split(" steps")[0]) - steps) <= 1
    for row in rows:  # three rounds of one small step say nothing of a ratio on a machine that works on other things
        assert row.physical
        assert row.goal == pairs.GOAL
        assert row.value > 0
        assert row.limit is not None
        assert row.limit > 0
