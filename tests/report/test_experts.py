"""Expert health from training to the report."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rec.config import RunConfig
from rec.evaluation.run import evaluate_run
from rec.moe.health import similarity
from rec.report.page import write_report
from rec.storage import Storage
from rec.train.job import train_here


def test_a_run_tells_how_its_experts_were_used(run_config: Callable[..., RunConfig]) -> None:
    mixture = {"experts": 3, "fine": 2, "shared": True, "capacity_factor": 0.8}
    config = run_config(model={"feedforward_mixture": mixture}, parallel={"workers": 0})
    events: list[dict] = []
    train_here(config, events.append, lambda _: None)
    layer = "encoder.blocks.0.feedforward.layer"
    assert 0 < next(e for e in events if e["kind"] == "step")["moe"][layer]["use_entropy"] <= 1
    for record in json.loads(Storage(config.out).read("history.json")):
        assert sum(record[f"moe/{layer}/load"]) == pytest.approx(1)
        assert len(record[f"moe/{layer}/load"]) == 6
        assert record[f"moe/{layer}/dropped_share"] > 0.15  # 0.8 of what is asked for fits at most
        assert 0 < record[f"moe/{layer}/decision_entropy"] < 1
    found = evaluate_run(config, "val")["tasks"]["ranking"]["experts"][layer]
    for shares in found["groups"].values():
        assert sum(shares) == pytest.approx(1, abs=1e-6)
    assert [row[e] for e, row in enumerate(found["similarity"])] == pytest.approx([1] * 6, abs=1e-5)
    page = Path(write_report(config.out, "val")).read_text()
    assert f"Experts of {layer}" in page


def test_experts_that_are_copies_are_alike() -> None:
    weight = torch.randn(2, 5, 7)
    alike = similarity(torch.stack([weight[0], weight[0] * 3, -weight[0], weight[1]]))
    torch.testing.assert_close(alike[0, :3], torch.tensor([1.0, 1.0, -1.0]))
    assert alike[0, 3].abs() < 0.6
