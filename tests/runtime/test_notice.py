"""A node that is told to end: the run saves first, and goes on elsewhere from there."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.runtime.local_cluster import LocalCluster
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from rec.train.job import train_here
from rec.train.training_record import read_training
from tests.runtime.test_local_nodes import SMALL, WORKERS, Driver, data, run_of
from tests.runtime.test_training import agree, history, quiet

__all__ = ["data"]
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_node_that_will_be_taken_away_is_left_with_a_checkpoint(
    local_nodes: LocalCluster, data: Path, tmp_path: Path
) -> None:
    # The one checkpoint before the end is that of the notice.
    keys = ["train.epochs=20", "train.checkpoint_steps=0", "train.evaluate_every=20"]
    config = run_of(data, tmp_path / "run", *keys)
    words = [*SMALL, f"data.root={data}", f"out={config.out}", *keys, *WORKERS]
    driver = Driver(local_nodes, tmp_path / "log", *words)
    driver.wait_until(lambda: "epoch 2/20" in driver.log.read_text())
    starter = next(
        process
        for pid in local_nodes.links.pids(local_nodes.links.namespace(1))
        if "--block" in (process := psutil.Process(pid)).cmdline()
    )
    starter.send_signal(signal.SIGTERM)
    try:
        assert driver.process.wait(300) == 0, driver.log.read_text()
    finally:
        local_nodes.heal(1)
    said = driver.log.read_text()
    address = local_nodes.address(1)
    assert f"{address} will be taken away: saving a checkpoint now" in said
    assert f"{address} will be taken away, and all that was done is saved; going on from the last checkpoint" in said
    assert "failure 1" not in said
    assert "1 of at most 3 workers" in said
    command = read_training(Storage(config.out))["commands"][-1]  # type: ignore[index]
    assert len(command["machines"]) == 1
    assert CheckpointStore(Storage(config.out).below("checkpoints")).newest_valid()[1] == []
    wanted = train_here(run_of(data, tmp_path / "whole", *keys, "parallel.workers=0"), quiet, quiet)
    agree(history(config), wanted.history)
