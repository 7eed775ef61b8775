"""The dashboard is one that Grafana reads, and asks for what Prometheus can answer."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[3] / "cluster/grafana"


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "rec.json").read_text())
    return found


def expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]


def test_grafanas_own_types_know_every_key() -> None:
    sdk = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    found = json.loads(encoder.JSONEncoder(sort_keys=True).encode(sdk.Dashboard.from_json(dashboard())))
    told = dashboard()
    assert found.keys() >= told.keys()
    for panel, read in zip(told["panels"], found["panels"], strict=True):
        assert read.keys() >= panel.keys() - {"panels", "collapsed"}, panel["title"]


def test_panels_lie_beside_each_other() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(places)
    for a, b in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert a["x"] + a["w"] <= 24


def test_every_expression_is_promql() -> None:
    parser = pytest.importorskip("promql_parser")
    assert len(expressions()) > 20
    for expression in expressions():
        parser.parse(expression.replace("$run", "a").replace("$node", "b"))


def test_prometheus_looks_where_ray_tells() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    files = [name for job in jobs for entry in job.get("file_sd_configs", []) for name in entry["files"]]
    assert files == ["/tmp/ray/prom_metrics_service_discovery.json"]
