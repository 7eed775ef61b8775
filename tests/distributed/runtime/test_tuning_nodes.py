"""A search over two real nodes that loses one ends with the trials of one that did not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.config import RunConfig, to_json
from rec.runtime.local_cluster import LocalCluster
from rec.storage import Storage
from rec.tuning.results import read_trials
from rec.tuning.trial import FINISHED, Trial

pytestmark = [pytest.mark.ray, pytest.mark.nodes, pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[3]
START = "import sys; from rec.config import from_json; from rec.runtime.tuning import search; "
START += "print(search(from_json(sys.argv[1]), lambda text: print(text, file=sys.stderr)))"
SPACE = {"train.learning_rate": {"log": [1e-3, 1e-2]}, "model.temperature": {"uniform": [0.05, 0.2]}}
SPANNING = {"workers": 2, "cpus_per_worker": 1.5}
"""A worker on each node, none of which has room for both."""


class Search:
    """A search on the head, with what it says."""

    def __init__(self, nodes: LocalCluster, config: RunConfig, log: Path) -> None:
        self.config, self.log = config, log
        with log.open("wb") as file:
            command = [sys.executable, "-c", START, to_json(config)]
            self.process = nodes.popen(0, command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT)

    def trials(self) -> list[Trial]:
        """Return its trials by what they try: which of two that run beside each other comes first is chance."""
        return sorted(read_trials(Storage(self.config.out)), key=lambda trial: str(trial.point))

    def wait_until(self, happened: Callable[[], Any], limit_s: float = 150.0) -> None:
        deadline_s = time.monotonic() + limit_s
        while not happened():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline_s, self.log.read_text()
            time.sleep(0.2)

    def end(self) -> list[tuple[Any, ...]]:
        """Return what became of each trial, without its name and what it cost."""
        assert self.process.wait(300) == 0, self.log.read_text()
        return [(t.point, t.status, t.evaluations, t.steps, len(t.curve)) for t in self.trials()]

    def best(self) -> list[float]:
        return [trial.best["ndcg@10"] for trial in self.trials()]


@pytest.fixture
def start(local_nodes: LocalCluster, run_config: Callable[..., RunConfig], tmp_path: Path) -> Callable[..., Search]:
    def started(name: str, parallel: dict[str, Any], **tune: Any) -> Search:
        keys = {"trials": 3, "scheduler": "none", "search": "random", "seed": 3, "space": SPACE, **tune}
        train = {"epochs": 4, "checkpoint_steps": 5}
        config = run_config(
            system="tests.support.faults:Slow", out=str(tmp_path / name), train=train, parallel=parallel, tune=keys
        )
        return Search(local_nodes, config, tmp_path / f"{name}.log")

    return started


def agree(found: Search, wanted: Search) -> None:
    """Check that two searches came to the same, but for the order in which sums were made."""
    assert found.end() == wanted.end()
    assert [trial.status for trial in found.trials()] == [FINISHED] * 3
    assert found.best() == pytest.approx(wanted.best(), abs=0.02)


def test_trials_that_span_nodes_wait_for_a_lost_one(local_nodes: LocalCluster, start: Callable[..., Search]) -> None:
    wanted = start("wanted", SPANNING)
    wanted.end()
    found = start("found", SPANNING)
    found.wait_until(lambda: any(trial.evaluations for trial in found.trials()))
    local_nodes.cut(1)
    try:
        found.wait_until(lambda: "room for 0 of 1 trial at the same time" in found.log.read_text())
    finally:
        local_nodes.heal(1)
    agree(found, wanted)


def test_trials_of_a_lost_node_start_again_on_what_is_left(
    local_nodes: LocalCluster, start: Callable[..., Search]
) -> None:
    wanted = start("wanted", {"workers": 1})
    wanted.end()
    found = start("found", {"workers": 1})
    found.wait_until(lambda: len([trial for trial in found.trials() if trial.evaluations]) > 1)
    local_nodes.cut(1)
    try:
        found.wait_until(lambda: "room for 1 of 3 trials at the same time" in found.log.read_text())
        agree(found, wanted)
    finally:
        local_nodes.heal(1)
