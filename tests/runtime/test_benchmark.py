"""Benchmarks run and say what they measured; how fast is not tested."""

import gc
import json
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.benchmarks import graph_costs, train
from rec.benchmarks.row import Row, show
from rec.cli import main
from rec.data.prepared import Prepared
from rec.runtime.memory import PeakMemory


def test_ratio_and_goal_follow_from_value_and_limit() -> None:
    row = Row("step", 3.0, "s", 2.0, 1.6)
    assert (row.ratio, row.met) == (1.5, True)
    assert Row("step", 3.0, "s", 2.0, 1.4).met is False
    assert (Row("memory", 3.0, "GiB", goal=4.0).met, Row("speed", 3.0, "1/s").met) == (True, None)
    assert "step" in show([row])


def test_the_evaluation_benchmark_writes_its_rows(planted: Prepared, tmp_path: Path) -> None:
    target = tmp_path / "rows.json"
    assert main(["benchmark", "evaluate", "--data", planted.storage.uri, "--json", str(target)]) == 0
    (row,) = json.loads(target.read_text())
    assert row.keys() == {"name", "value", "unit", "limit", "ratio", "goal", "met"}
    assert row["ratio"] == pytest.approx(row["value"] / row["limit"])


def test_the_training_benchmark_measures_a_step(planted: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "REPEATS", 2)
    step, speed = train.measure(planted)
    assert step.value > 0
    assert speed.value == pytest.approx(128 / step.value)


def test_costs_are_told_of_every_system_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_costs, "SMALLEST", 600)
    gc.collect()
    gc.freeze()  # what other tests left is not looked through each time that memory is measured
    try:
        rows = graph_costs.costs(6000, lambda _: None)
    finally:
        gc.unfreeze()
    systems = ("LightGCN", "LightGCN, fanout 10", "FREEDOM-like", "MAGNET", "MAGNET, fanout 10")
    for size in ("600 interactions", "6,000 interactions"):
        told = {row.name.rpartition(": ")[2]: row.value for row in rows if row.name.startswith(size)}
        assert told.pop("prepared") > 0
        parts = ("memory of weights and edges", "a step", "peak of a step's tensors")
        assert set(told) == {f"{name}, {part}" for name in systems for part in parts}
        assert min(value for name, value in told.items() if not name.endswith(parts[0])) > 0


def test_memory_counts_children() -> None:
    import subprocess
    import sys

    with PeakMemory() as alone:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)"], check=True)
    with PeakMemory() as heavy:
        code = "import time; x = b'1' * (300 << 20); time.sleep(0.3)"
        subprocess.run([sys.executable, "-c", code], check=True)
    assert heavy.peak_bytes - alone.peak_bytes > 250 << 20


@pytest.mark.ray
@pytest.mark.slow
def test_the_mixture_benchmark_measures_times_memory_and_traffic() -> None:
    from rec.runtime.benchmark_moe import measure as measure_moe

    rows = measure_moe(small=True)
    assert all(row.value > 0 and (row.limit or 0) > 0 for row in rows)
    traffic = [row for row in rows if "bytes per row" in row.name]
    assert len(traffic) == 6
    assert all(row.ratio is not None and 0.9 < row.ratio <= 1.1 for row in traffic)
