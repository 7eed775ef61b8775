"""Two real nodes train on a data set many times as large as their object stores, while Prometheus could look on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.benchmarks.cluster.streaming import GROWTH_GOAL, LENGTH, StreamingSize, Watched, rows_of, trained_on, written
from rec.benchmarks.row import Row
from rec.runtime.local_cluster import LocalCluster

pytestmark = [pytest.mark.ray, pytest.mark.nodes, pytest.mark.slow, pytest.mark.timeout(600)]
DASHBOARD = Path(__file__).resolve().parents[3] / "cluster/grafana/rec.json"
ABSENT = {"ray_node_gpus_utilization", "ray_node_gram_used"}
"""Metrics that only nodes with GPUs show."""
TIMES = 12
"""Of an object store: with less, training is over before buffers are full, and memory grows to the end."""


@pytest.fixture(scope="module")
def streamed(local_nodes: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Watched, list[Row]]:
    size = StreamingSize(nodes=2, store=local_nodes.shape.store_bytes, times=TIMES)
    folder = tmp_path_factory.mktemp("streaming")
    watched, seconds = trained_on(local_nodes, written(f"{folder}/data", size.rows), folder)
    return watched, rows_of(size, watched, seconds)


def test_nothing_is_spilled_and_memory_does_not_grow(streamed: tuple[Watched, list[Row]]) -> None:
    watched, rows = streamed
    assert rows[0].ratio == pytest.approx(TIMES, rel=0.01)
    assert rows[0].value > LENGTH * 4 * 3 * 4096
    assert 0 < max(watched.store) <= 1
    assert watched.spilled == 0
    growth = next(row.ratio for row in rows if "second half" in row.name)
    assert growth is not None
    assert growth < GROWTH_GOAL


def test_nodes_show_every_metric_that_the_dashboard_asks_for(streamed: tuple[Watched, list[Row]]) -> None:
    parser = pytest.importorskip("promql_parser")
    panels = json.loads(DASHBOARD.read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    asked = {name for text in texts for name in names_of(parser.parse(text.replace("$run", "a").replace("$node", "b")))}
    assert asked - ABSENT <= streamed[0].names
    assert {name for name in asked if name.startswith("ray_rec_")}


def names_of(expression: object) -> set[str]:
    """The metrics of an expression, wherever they stand in it."""
    if type(expression).__name__ == "VectorSelector":
        return {expression.name}  # type: ignore[attr-defined]
    parts = (getattr(expression, name, None) for name in ("expr", "lhs", "rhs", "vector_selector", "args"))
    inner = [one for part in parts if part is not None for one in (part if isinstance(part, list) else [part])]
    return {name for one in inner for name in names_of(one)}
