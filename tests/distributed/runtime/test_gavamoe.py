"""GaVaMoE on several ranks: the same losses however its experts are shared, and wherever a run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rec.config import RunConfig, override, to_json
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from rec.train.job import claim
from tests.distributed.runtime.test_phase_ranks import train_rank
from tests.end_to_end.systems.gavamoe.test_runs import config_of

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytestmark = [pytest.mark.ray]
KEYS = ["train.checkpoint_steps=3", "train.clip_norm=0.5", "model.experts.balance_weight=0.01"]
History = list[dict[str, Any]]


def run_of(folder: Path, name: str, expert_parallel: int) -> RunConfig:
    """Return a run of two workers that share a copy of the experts, or have one each."""
    config = override(
        config_of(folder, name), [*KEYS, "parallel.workers=2", f"parallel.expert_parallel={expert_parallel}"]
    )
    claim(config)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shared")
    prepare(config_of(made, "").data, InProcess(), lambda _: None, ["sentences"])
    return made


@pytest.fixture(scope="module")
def wanted(ranks: Any, folder: Path) -> History:
    """Losses of a run in which each of two workers has all experts."""
    found: History = ranks.run(2, train_rank, to_json(run_of(folder, "whole", 1)))[0]
    return found


def close(found: History, wanted: History) -> None:
    """Assert that every loss of every phase is the same."""
    assert [record["phase_name"] for record in wanted] == ["vae"] * 2 + ["mixture"] * 2 + ["writer"] * 2
    for one, other in zip(found, wanted, strict=True):
        losses = {name: value for name, value in other.items() if "loss" in name}
        assert {name: one[name] for name in losses} == pytest.approx(losses, rel=2e-4)


def test_losses_are_the_same_with_shared_experts(ranks: Any, folder: Path, wanted: History) -> None:
    for found in ranks.run(2, train_rank, to_json(run_of(folder, "shared", 2))):
        close(found, wanted)


@pytest.mark.parametrize("stop_at", [6, 21, 42], ids=["vae", "mixture", "writer"])
def test_a_run_stopped_in_any_phase_goes_on_with_experts_shared_otherwise(
    ranks: Any, folder: Path, wanted: History, stop_at: int
) -> None:
    name = f"stopped-{stop_at}"
    first = run_of(folder, name, 2)
    assert ranks.run(2, train_rank, to_json(first), stop_at) == [None, None]
    assert CheckpointStore(Storage(first.out).below("checkpoints")).steps()[-1] == stop_at
    for found in ranks.run(2, train_rank, to_json(run_of(folder, name, 1))):
        close(found, wanted)
