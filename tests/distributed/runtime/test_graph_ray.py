"""Recommenders on graphs on Ray: trained by two workers as by one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.config import RunConfig, from_table
from rec.evaluation.run import evaluate_run
from rec.runtime.prepare import prepare
from rec.runtime.training import train
from rec.storage import Storage
from rec.train.job import train_here

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SYSTEMS = {
    "rec.systems.lightgcn:LightGCN": {"edge_dropout": 0.5, "content": {"text": 1.0}, "fanout": 5},
    "rec.systems.magnet:Magnet": {
        "contrast_weight": 0.001,
        "trigger": {"window": 10, "warmup": 5},
        "regularisation": 0.001,
    },
}


def quiet(_: Any) -> None:
    """Say nothing."""


def run_of(root: Path, system: str, workers: int) -> RunConfig:
    planted = {"users": 300, "items": 120, "interactions": 5000, "width": 8}
    return from_table(
        {
            "system": system,
            "out": str(root / f"{workers}-{system.partition(':')[2]}"),
            "data": {
                "root": str(root / "data"),
                "source": "rec.data.generated.graph:PlantedGraph",
                "read": planted,
                "split": {"protocol": "mmrec"},
            },
            "model": {"width": 16} | SYSTEMS[system],
            "train": {
                "batch_size": 256,
                "epochs": 15,
                "learning_rate": 0.01,
                "metric": "recall@20",
                "evaluate_every": 15,
            },
            "evaluate": {"bootstrap": 100},
            "parallel": {"workers": workers},
        }
    )


@pytest.mark.parametrize("system", list(SYSTEMS))
def test_two_workers_learn_what_one_process_does(ray_runtime: None, tmp_path: Path, system: str) -> None:
    here, there = (run_of(tmp_path, system, workers) for workers in (0, 2))
    prepare(there.data, quiet)
    told = train_here(here, quiet, quiet).history[-1]
    train(there, quiet, quiet)
    history = json.loads(Storage(there.out).read("history.json"))
    assert history[-1]["total_step"] == told["total_step"]
    assert history[-1]["loss/bpr"] == pytest.approx(told["loss/bpr"], abs=0.03)
    assert history[-1]["recall@20"] == pytest.approx(told["recall@20"], abs=0.05)
    assert history[-1].get("moe/mixture/switched_at", 0) == pytest.approx(
        told.get("moe/mixture/switched_at", 0), abs=10
    )
    numbers = evaluate_run(there, "test")
    assert numbers["metrics"]["recall@20"] > 1.1 * numbers["baselines"]["popularity"]["recall@20"]
