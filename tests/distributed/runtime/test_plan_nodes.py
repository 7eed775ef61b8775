"""What `rec plan` says against real nodes: bytes on links, and where ranks that share experts are put."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.cli import main
from rec.cli.plan import planned
from rec.config import load
from rec.errors import ConfigError
from rec.runtime.local_cluster import LocalCluster, Shape, running
from rec.runtime.local_links import require_possible
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore

pytestmark = [pytest.mark.ray, pytest.mark.nodes, pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[3]
CONFIG = str(ROOT / "rec/configs/demo.toml")
NEAR = 0.2
"""Largest difference between what is told and what is measured, as a share of this."""
BETWEEN, IDLE_S = 25, 5.0
"""Steps from one checkpoint to the next, and seconds in which the idle cluster is listened to."""
SMALL = "data.read.interactions=20000"
ONE_EACH = [SMALL, "parallel.workers=2", "parallel.cpus_per_worker=2"]
"""A node of 3 CPUs has room for one worker."""
TRAIN = ["train.epochs=200", "train.evaluate_every=200", f"train.checkpoint_steps={BETWEEN}"]
SPREAD = ["model.feedforward_mixture.experts=4", "parallel.expert_parallel=2"]


@pytest.fixture(scope="module")
def nodes() -> Iterator[LocalCluster]:
    """Two Ray nodes with room for three workers each."""
    try:
        require_possible()
    except ConfigError as error:
        pytest.skip(str(error))
    with running(f"t{os.getpid()}", Shape(cpus=3)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The generated catalogue."""
    root = str(tmp_path_factory.mktemp("planned") / "data")
    assert main(["prepare", CONFIG, f"data.root={root}", SMALL, "parallel.workers=0"]) == 0
    return root


def crossed(nodes: LocalCluster) -> tuple[int, int]:
    """Return the bytes that node 1 has sent and received so far."""
    folder = Path("/sys/class/net") / nodes.links.device(1) / "statistics"
    return int((folder / "rx_bytes").read_text()), int((folder / "tx_bytes").read_text())


def measured(nodes: LocalCluster, words: list[str], out: Path, spans: int = 2) -> tuple[float, float]:
    """Return the bytes per step that node 1 sends and receives, without what goes over its link in idle times."""
    start, start_s = crossed(nodes), time.monotonic()
    time.sleep(IDLE_S)
    idle = [(end - begin) / (time.monotonic() - start_s) for begin, end in zip(start, crossed(nodes), strict=True)]
    store = CheckpointStore(Storage(str(out)).below("checkpoints"))
    command = [sys.executable, "-m", "rec.cli", "train", CONFIG, *words, f"out={out}"]
    with (out.parent / "log").open("wb") as log:
        driver = nodes.popen(0, command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
    seen: list[tuple[float, int, tuple[int, int]]] = []
    try:
        while len(seen) <= spans:
            assert driver.poll() is None, (out.parent / "log").read_text()
            steps = store.steps()
            if steps and (not seen or steps[-1] > seen[-1][1]):
                seen.append((time.monotonic(), steps[-1], crossed(nodes)))
            time.sleep(0.02)
    finally:
        driver.terminate()
        driver.wait(60)
    (first_s, first, before), (last_s, last, after) = seen[0], seen[-1]
    count, passed_s = last - first, last_s - first_s
    found = [(b - a - rate * passed_s) / count for a, b, rate in zip(before, after, idle, strict=True)]
    print(f"{count} steps in {passed_s:.1f} s, idle {[round(rate) for rate in idle]} B/s, {[round(x) for x in found]}")
    return found[0], found[1]


def test_ranks_that_share_experts_are_put_on_one_node(nodes: LocalCluster, tmp_path: Path) -> None:
    """Of two nodes with room for three each, both get a pair; Ray by itself would fill the first."""
    assert nodes.run([sys.executable, "-m", "tests.support.placed", str(tmp_path / "found")]) == 0
    found = json.loads((tmp_path / "found").read_text())
    print(found)
    assert sorted(found["ours"]) == [nodes.address(0)] * 2 + [nodes.address(1)] * 2
    assert found["ours"][0] == found["ours"][1]


def test_bytes_on_a_link_are_as_planned(nodes: LocalCluster, data: str, tmp_path: Path) -> None:
    keys = [f"data.root={data}", *ONE_EACH, *TRAIN, *SPREAD]
    plan = planned(load(CONFIG, [*keys, f"out={tmp_path / 'run'}"]), "2x3")
    assert plan.nodes == [0, 1]
    told = plan.stages[0].traffic.wire(1)
    found = measured(nodes, keys, tmp_path / "run")
    print(f"told {[round(value) for value in told]}, of which payload {plan.stages[0].traffic.sent(1):.0f}")
    assert told == pytest.approx(found, rel=NEAR)


@pytest.mark.parametrize("width", [64, 256])
def test_memory_of_a_worker_is_as_planned(nodes: LocalCluster, data: str, tmp_path: Path, width: int) -> None:
    keys = [f"data.root={data}", *ONE_EACH, "train.epochs=1", "train.batch_size=2048", f"model.width={width}"]
    keys += [f"out={tmp_path / 'run'}"]
    plan = planned(load(CONFIG, keys), "2x3")
    told = plan.resident(plan.stages[0])
    assert nodes.run([sys.executable, "-m", "rec.cli", "train", CONFIG, *keys]) == 0
    commands = json.loads((tmp_path / "run/training.json").read_text())["commands"]
    found = commands[-1]["peak_memory_bytes"] / 2
    print(f"told {told}, found {found:.0f}")
    assert told == pytest.approx(found, rel=NEAR)
