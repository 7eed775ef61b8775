"""A node that is unlike the others: slow, of another version, or about to be taken away."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.runtime.local_cluster import LocalCluster
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from rec.train.job import train_here
from rec.train.training_record import read_training
from tests.distributed.runtime.test_local_nodes import SMALL, WORKERS, Driver, data, run_of
from tests.distributed.runtime.test_training import agree, history, quiet

__all__ = ["data"]
pytestmark = [pytest.mark.ray, pytest.mark.nodes, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_node_that_will_be_taken_away_is_left_with_a_checkpoint(
    local_nodes: LocalCluster, data: Path, tmp_path: Path
) -> None:
    # The one checkpoint before the end is that of the notice.
    keys = ["train.epochs=60", "train.checkpoint_steps=0", "train.evaluate_every=60"]
    config = run_of(data, tmp_path / "run", *keys)
    words = [*SMALL, f"data.root={data}", f"out={config.out}", *keys, *WORKERS]
    driver = Driver(local_nodes, tmp_path / "log", *words)
    driver.wait_until(lambda: "step 1/" in driver.log.read_text())
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


@contextlib.contextmanager
def slowed(process: psutil.Process, share: float) -> Iterator[None]:
    """Let a process run for a share of the time inside."""
    ended = threading.Event()

    def throttle() -> None:
        while not ended.is_set():
            process.suspend()
            time.sleep((1 - share) * 0.05)
            process.resume()
            time.sleep(share * 0.05)

    thread = threading.Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_rank_at_a_tenth_of_the_speed_is_named_with_its_node(
    local_nodes: LocalCluster, data: Path, tmp_path: Path
) -> None:
    keys = ["train.epochs=400", "train.evaluate_every=400", "parallel.workers=4", "model.width=128"]
    words = [*SMALL, f"data.root={data}", f"out={tmp_path / 'run'}", *keys, "parallel.cpus_per_worker=0.75"]
    driver = Driver(local_nodes, tmp_path / "log", *words)
    try:
        driver.wait_until(lambda: driver.log.read_text().count("\nstep ") > 1)
        pids = local_nodes.links.pids(local_nodes.links.namespace(1))
        workers = [one for one in map(psutil.Process, pids) if "RayTrainWorker" in "".join(one.cmdline())]
        with slowed(workers[0], 0.1):
            driver.wait_until(lambda: "is slow" in driver.log.read_text(), 90)
        line = next(line for line in driver.log.read_text().splitlines() if "is slow" in line)
        print(line)
        assert f"on {local_nodes.address(1)} is slow, and all wait for it: its own work of a step takes" in line
    finally:
        driver.process.terminate()
        driver.process.wait(60)


def test_a_node_with_another_version_is_refused_before_training(
    local_nodes: LocalCluster, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "rec-0.0.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: rec\nVersion: 0.0.9\n")
    before = os.environ.get("PYTHONPATH", "")
    space = local_nodes.links.namespace(1)
    try:
        with monkeypatch.context() as changed:
            changed.setenv("PYTHONPATH", os.pathsep.join([str(other.parent), before]))
            local_nodes.links.end([space])
            local_nodes.wait({1: local_nodes.start(1)})
        driver = Driver(local_nodes, tmp_path / "log", *SMALL, f"data.root={data}", f"out={tmp_path / 'run'}", *WORKERS)
        assert driver.process.wait(120) == 1, driver.log.read_text()
        last = driver.log.read_text().splitlines()[-1]
        assert last.startswith(f"error: node {local_nodes.address(1)}: rec 0.0.9, expected ")
        assert "step 1/" not in driver.log.read_text()
    finally:
        local_nodes.links.end([space])
        local_nodes.wait({1: local_nodes.start(1)})
