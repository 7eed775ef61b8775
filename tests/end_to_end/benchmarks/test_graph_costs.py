"""Costs of steps on generated graphs of growing size."""

import gc

import pytest

pytest.importorskip("psutil", reason="needs the extra `cluster`")

from rec.benchmarks import graph_costs


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
