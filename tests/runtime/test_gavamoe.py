"""GaVaMoE on Ray: the same losses however its experts are shared and wherever a run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.config import RunConfig, override
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.runtime.training import train
from rec.storage import Storage
from tests.systems.gavamoe.test_runs import config_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]
STILL = ["model.pairs.dropout=0.0", "model.pairs.unknown_share=0.0", "model.experts.balance_weight=0.01"]


def quiet(_: Any) -> None:
    """Say nothing."""


def history(config: RunConfig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Storage(config.out).read_json("history.json")
    return found


def test_losses_are_the_same_with_shared_experts_and_at_another_size(ray_runtime: None, tmp_path: Path) -> None:
    def run(name: str, workers: int, expert_parallel: int, epochs: int) -> RunConfig:
        keys = [f"parallel.workers={workers}", f"parallel.expert_parallel={expert_parallel}"]
        return override(config_of(tmp_path, name), [*STILL, *keys, f"train.phases.writer.epochs={epochs}"])

    prepare(config_of(tmp_path, "straight").data, InProcess(), quiet)
    straight = run("straight", 2, 1, 2)
    train(straight, quiet, quiet)
    train(run("moved", 2, 2, 1), quiet, quiet)
    moved = run("moved", 1, 1, 2)
    train(moved, quiet, quiet)
    told, wanted = history(moved), history(straight)
    assert [record["phase_name"] for record in told] == ["vae"] * 2 + ["mixture"] * 2 + ["writer"] * 2
    for found, right in zip(told, wanted, strict=True):
        losses = {name: value for name, value in right.items() if "loss" in name}
        assert {name: found[name] for name in losses} == pytest.approx(losses, rel=2e-4)
