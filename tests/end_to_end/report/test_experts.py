"""Expert health from training to the report."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rec.config import RunConfig
from rec.evaluation.experts import sections
from rec.evaluation.run import evaluate_run
from rec.moe.health import similarity
from rec.report.page import write_report
from rec.sections import Heatmap, Lines
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
    assert "Experts of layer 0" in page
    assert f"Experts of {layer}" not in page


def test_experts_that_are_copies_are_alike() -> None:
    weight = torch.randn(2, 5, 7)
    alike = similarity(torch.stack([weight[0], weight[0] * 3, -weight[0], weight[1]]))
    torch.testing.assert_close(alike[0, :3], torch.tensor([1.0, 1.0, -1.0]))
    assert alike[0, 3].abs() < 0.6


def test_load_and_health_lie_over_epochs_of_all_phases() -> None:
    history = [
        {"phase": 0, "epoch": 2},
        *({"phase": 1, "epoch": epoch, "moe/mix/load": [0.25, 0.75], "moe/mix/use_entropy": 0.8} for epoch in (2, 4)),
    ]
    final = {"groups": {"a": [0.4, 0.6], "b": [0.1, 0.9]}, "similarity": [[1.0, 0.0], [0.0, 1.0]]}
    (section,) = sections({"mix": final}, history)
    note, load, health, shares, alike = section.parts
    assert isinstance(load, Heatmap)
    assert isinstance(health, Lines)
    assert isinstance(shares, Heatmap)
    assert isinstance(alike, Heatmap)
    assert "small networks, the experts" in note.text
    assert (load.x_axis, load.x_names) == ("epoch", ("4", "6"))
    assert (health.x_axis, health.series[0].x, health.low, health.high) == ("epoch", (4.0, 6.0), 0.0, 1.0)
    assert shares.y_names == ("b", "a"), "the first group is on top"
    assert shares.matrix == ((0.1, 0.9), (0.4, 0.6))
    assert load.y_names == shares.x_names == alike.x_names == ("0", "1")
