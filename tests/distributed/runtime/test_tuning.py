"""Searches on Ray: trials that fail, a test split that cannot be read, resources given back, killed drivers."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rec.config import RunConfig, load, to_json
from rec.data.prepared import Prepared
from rec.storage import Storage
from rec.tuning.results import read_trials
from rec.tuning.trial import FAILED, FINISHED, STOPPED, Trial

pytestmark = pytest.mark.ray
SPACE = {"train.learning_rate": {"log": [1e-3, 1e-2]}, "model.dropout": {"uniform": [0.0, 0.5]}}


def quiet(_: Any) -> None:
    pass


@pytest.fixture
def no_test_split(planted: Prepared, tmp_path: Path) -> str:
    """A copy of the data set whose test files hold nothing that can be read."""
    root = tmp_path / "data"
    shutil.copytree(planted.root, root)
    for path in (root / Path(planted.storage.root).name / "views" / "sequences" / "test").iterdir():
        path.write_bytes(b"\0" * path.stat().st_size)
    return str(root)


def search(config: RunConfig) -> tuple[str, list[Trial]]:
    from rec.runtime.tuning import search as run

    return run(config, quiet), read_trials(Storage(config.out))


def test_a_search_survives_failing_trials_reads_no_test_split_and_gives_everything_back(
    ray_runtime, run_config, no_test_split, tmp_path
) -> None:
    import ray

    space = {"train.learning_rate": {"choice": [5e-3, 1e30]}, "model.dropout": {"uniform": [0.0, 0.5]}}
    config = run_config(
        data={"root": no_test_split},
        parallel={"workers": 1},
        train={"epochs": 2},
        tune={"trials": 4, "concurrent": 2, "space": space, "search": "random", "seed": 3},
    )
    text, trials = search(config)
    assert len(trials) == 4
    by_status = {status: [t for t in trials if t.status == status] for status in (FINISHED, STOPPED, FAILED)}
    assert {t.point["train.learning_rate"] for t in by_status[FAILED]} == {1e30}
    assert len(by_status[FAILED]) == sum(t.point["train.learning_rate"] == 1e30 for t in trials) > 0
    assert all("is nan" in t.error or "is inf" in t.error for t in by_status[FAILED])
    assert len(by_status[FINISHED]) >= 1
    assert "failed:" in text
    out = Path(config.out)
    assert {"best.toml", "trials.csv", "search.html", "search.json"} <= {p.name for p in out.iterdir()}
    assert list(out.glob("state/*/events.out.tfevents*"))
    best = load(out / "best.toml")
    assert (
        best.train.learning_rate
        == max((t for t in trials if t.best), key=lambda t: t.best["ndcg@10"]).point["train.learning_rate"]
    )
    deadline_s = time.monotonic() + 10
    while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline_s, "a trial's CPUs are still taken"
        time.sleep(0.2)


def test_a_search_goes_on_after_kill_9_without_repeating_finished_trials(run_config, tmp_path) -> None:
    tune = {"trials": 8, "concurrent": 2, "space": SPACE, "scheduler": "none"}
    config = run_config(train={"epochs": 60}, tune=tune)
    code = (
        "import sys; from rec.config import from_json; from rec.runtime.tuning import search;"
        "print(search(from_json(sys.argv[1]), print))"
    )
    command = [sys.executable, "-c", code, to_json(config)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    storage = Storage(config.out)
    deadline_s = time.monotonic() + 150
    while sum(t.status == FINISHED for t in read_trials(storage)) < 2:
        assert time.monotonic() < deadline_s
        assert first.poll() is None
        time.sleep(0.1)
    time.sleep(2.5)  # the state of the search is written every 2 s
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = {t.id: t for t in read_trials(storage) if t.status == FINISHED}
    assert 2 <= len(before) < 8
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    after = {t.id: t for t in read_trials(storage)}
    assert len(after) == 8
    assert {t.status for t in after.values()} == {FINISHED}
    assert {t.evaluations for t in after.values()} == {60}
    for name, trial in before.items():
        assert after[name] == trial  # its time too: it was not touched
    assert "8 finished" in done.stdout


def tree(folder: str) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in Path(folder).rglob("*") if p.is_file()}


@pytest.mark.parametrize("keys", [{"scheduler": "none"}, {"trials": 2, "concurrent": 2}])
def test_the_same_command_on_a_search_that_is_over_does_nothing(ray_runtime, run_config, keys, monkeypatch) -> None:
    config = run_config(train={"epochs": 1}, tune={"trials": 1, "concurrent": 1, "space": SPACE} | keys)
    first, _ = search(config)
    before = tree(config.out)
    monkeypatch.setattr("rec.runtime.tuning.runtime", lambda *_, **__: pytest.fail("Ray was started"))
    again, _ = search(config)
    assert tree(config.out) == before
    told = "1 trial" if config.tune.trials == 1 else "2 trials"
    assert again == f"{config.out}: nothing left to search: all {told} ended\n{first}"


def test_a_population_hands_on_checkpoints(ray_runtime, run_config) -> None:
    space = {"train.learning_rate": {"log": [1e-5, 1e-2]}}
    config = run_config(
        train={"epochs": 6},
        tune={"trials": 4, "concurrent": 2, "scheduler": "pbt", "perturb_every": 2, "space": space},
    )
    _, trials = search(config)
    assert len(trials) == 4
    assert all(t.evaluations >= 6 for t in trials if t.status == FINISHED)
    folder = Path(config.out) / "trials"
    moved = sorted(folder.glob("*/part-001"))
    assert moved, "no trial took over another one's checkpoint"
    # A part that takes over a checkpoint of the last epoch has nothing left to measure.
    histories = [json.loads(path.read_text()) for path in folder.glob("*/part-*/history.json")]
    measured = [[record["epoch"] for record in history] for history in histories]
    assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in measured)
    assert max(len(epochs) for epochs in measured) == 6


def test_several_objectives_give_a_front(ray_runtime, run_config) -> None:
    from rec.sections import counted
    from rec.tuning.results import front

    config = run_config(
        model={"feedforward_mixture": {"experts": 2}},
        tune={
            "trials": 4,
            "concurrent": 2,
            "scheduler": "none",
            "objectives": {"load_balance": "max"},
            "space": {**SPACE, "model.feedforward_mixture.balance_weight": {"log": [1e-4, 1e-1]}},
        },
    )
    text, trials = search(config)
    goals = {"ndcg@10": "max", "load_balance": "max"}
    assert all(goals.keys() <= t.best.keys() for t in trials)
    assert f"{counted(len(front(trials, goals)), 'trial')} dominated by no other" in text


def test_a_budget_stops_the_search(ray_runtime, run_config) -> None:
    hours = 6 / 3600
    config = run_config(
        train={"epochs": 200, "patience": 0},
        tune={"trials": 50, "concurrent": 2, "scheduler": "none", "space": SPACE, "max_worker_hours": hours},
    )
    start_s = time.monotonic()
    _, trials = search(config)
    assert time.monotonic() - start_s < 60
    assert len(trials) < 10
    assert {t.status for t in trials} <= {STOPPED, FINISHED}
