"""Processes of real nodes that are killed while a run trains: what that costs, and that the run ends as without."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.benchmarks import chaos
from rec.benchmarks.chaos import faults
from rec.benchmarks.chaos.training import Training
from rec.runtime.local_cluster import LocalCluster
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from tests.distributed.runtime.test_training import agree

pytestmark = [pytest.mark.ray, pytest.mark.nodes, pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[3]
EPOCHS, BEFORE = 30, 30
"""Of a run, and steps before its fault."""
WORKER_S, NODE_S = 30.0, 60.0
"""Most seconds to the next step after a killed worker or driver, and after a killed node."""
ENDED_S = 20.0
"""Within which nothing is left of a run whose driver was killed."""
LEFT_S = 300.0
Start = Callable[[], Training]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[dict[str, Any]]]:
    """The words of a run, and what it measures without faults."""
    keys, (history,) = chaos.undisturbed(tmp_path_factory.mktemp("faults"), EPOCHS)
    return keys, [dict(one) for one in history]


@pytest.fixture
def start(
    local_nodes: LocalCluster, undisturbed: tuple[list[str], list[dict[str, Any]]], tmp_path: Path
) -> Iterator[Start]:
    """Start a run that has made some steps."""
    runs: list[Training] = []

    def begin() -> Training:
        run = Training(local_nodes, tmp_path, [*undisturbed[0], *chaos.PARALLEL])
        runs.append(run)
        run.wait(lambda: run.step() >= BEFORE, LEFT_S)
        return run

    yield begin
    for run in runs:
        run.process.kill()


def ends_as_undisturbed(run: Training, undisturbed: tuple[list[str], list[dict[str, Any]]], interval: int) -> None:
    """Check that the run ends with the same numbers, that nothing saved was lost, and all on disk is whole."""
    run.finish(LEFT_S)
    agree(run.history(), undisturbed[1])
    assert run.lost() == []
    assert run.faults() == []
    assert all(again <= interval for _, again in run.again()), run.again()


def test_a_killed_worker_costs_an_interval_at_most(start: Start, undisturbed: Any) -> None:
    run = start()
    survived = faults.kill_worker(run, random.Random(0))
    print(survived)
    ends_as_undisturbed(run, undisturbed, chaos.INTERVAL)
    assert len(run.again()) == 1
    assert survived.next_step_s < WORKER_S


def test_a_run_goes_on_without_a_killed_node_and_grows_when_it_is_back(start: Start, undisturbed: Any) -> None:
    run = start()
    survived = faults.kill_node(run, random.Random(0))
    print(survived)
    run.wait(lambda: run.events("workers")[-1]["workers"] == chaos.WORKERS, LEFT_S)
    assert [event["workers"] for event in run.events("workers")] == [chaos.WORKERS, 1, chaos.WORKERS]
    ends_as_undisturbed(run, undisturbed, chaos.INTERVAL)
    assert "there is room for more workers; going on from the last checkpoint" in run.said()
    assert survived.next_step_s < NODE_S


def test_nothing_is_left_of_a_killed_driver_and_the_same_command_goes_on(
    start: Start, local_nodes: LocalCluster, undisturbed: Any
) -> None:
    run = start()
    run.process.kill()
    run.process.wait()
    killed_s = time.monotonic()
    run.wait(lambda: not run.workers() and not held(local_nodes), ENDED_S, ended=True)
    print(f"nothing was left after {time.monotonic() - killed_s:.1f} s")
    since_s = time.time()
    run.start()
    print(f"next step after {run.next_step(since_s, LEFT_S, restarted=True):.1f} s")
    ends_as_undisturbed(run, undisturbed, chaos.INTERVAL)


def held(nodes: LocalCluster) -> list[dict[str, Any]]:
    """Return what reserves CPUs on a cluster."""
    return [group for group in nodes.listed("placement_groups") if group["state"] != "REMOVED"]


def test_training_goes_on_while_the_server_of_the_head_is_gone(start: Start, undisturbed: Any) -> None:
    run = start()
    print(faults.kill_server(run, random.Random(0)))
    ends_as_undisturbed(run, undisturbed, chaos.INTERVAL)
    assert run.again() == []


def test_a_submitted_job_dies_with_the_head_and_the_same_command_goes_on(
    local_nodes: LocalCluster, undisturbed: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    store = CheckpointStore(Storage(str(out)).below("checkpoints"))
    words = [*undisturbed[0], *chaos.PARALLEL, f"out={out}"]
    first = submitted(local_nodes, tmp_path / "first", words)
    wait(lambda: any(step >= BEFORE for step in store.steps()), first)
    local_nodes.kill(0)
    local_nodes.heal(0)
    code, said = ended(first)
    print(said)
    assert code == 1
    assert "the cluster does not answer; asking for another 120 s" in said
    assert said.splitlines()[-1].startswith("error: rec-train-")
    stood = store.steps()[-1]
    code, said = ended(submitted(local_nodes, tmp_path / "second", words))
    assert code == 0, said
    assert f"going on from step {stood}" in said
    agree(Storage(str(out)).read_json("history.json"), undisturbed[1])


def submitted(nodes: LocalCluster, folder: Path, words: list[str]) -> subprocess.Popen[str]:
    """Submit a job with an empty working directory, and follow it."""
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {**nodes.client, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "rec.cli", "submit", "train", *words]
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait(happened: Callable[[], bool], process: subprocess.Popen[str], limit_s: float = LEFT_S) -> None:
    """Wait until something is so while a command runs."""
    deadline_s = time.monotonic() + limit_s
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code of a command, and what it said."""
    said, _ = process.communicate(timeout=LEFT_S)
    return process.returncode, said


def test_a_run_survives_random_faults(local_nodes: LocalCluster, tmp_path: Path) -> None:
    rows = chaos.disturbed(local_nodes, tmp_path, chaos.Chaos(faults=2, minutes=5, kinds=("pause", "link")), print)
    late = [row.name for row in rows if row.met is False]
    assert not late
