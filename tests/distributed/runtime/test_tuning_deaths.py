"""A search whose driver or trial is stopped by SIGKILL ends, run again, with the trials of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rec.config import RunConfig, to_json
from rec.storage import Storage
from rec.systems.msmrec import MSMRec
from rec.tuning.results import read_trials
from rec.tuning.trial import FINISHED, Trial
from tests.support.deaths import Injector

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[3]
TUNE = {
    "trials": 2, "concurrent": 1, "scheduler": "none", "search": "random", "seed": 3,
    "space": {"train.learning_rate": {"log": [1e-3, 1e-2]}},
}  # fmt: skip
START = """
import os, signal, sys
from ray import tune
from rec.config import from_json
from rec.runtime.tuning import search
from tests.support.deaths import Injector
if sys.argv[2] == "begun":
    tune.Tuner.fit = lambda tuner: os.kill(os.getpid(), signal.SIGKILL)
else:
    Injector(int(sys.argv[2])).install()
print(search(from_json(sys.argv[1]), print))
"""
MARK = "REC_TEST_DEATH"


class Dying(MSMRec):
    """MSMRec whose process dies at a write, once: the one that the file named by a variable tells."""

    def model(self) -> Any:
        mark = Path(os.environ.get(MARK, "nowhere"))
        if mark.exists():
            at = int(mark.read_text())
            mark.unlink()
            Injector(at).install()
        return super().model()


def search(config: RunConfig, at: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", START, to_json(config), at]
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, env=given, cwd=ROOT)


def found(config: RunConfig) -> list[tuple[Any, ...]]:
    """Return what became of each trial, without its name and what it cost."""

    def told(trial: Trial) -> tuple[Any, ...]:
        best = {name: value for name, value in trial.best.items() if name != "evaluate_s"}
        return trial.point, trial.status, trial.evaluations, trial.steps, best, trial.curve

    return [told(trial) for trial in read_trials(Storage(config.out))]


def files(config: RunConfig) -> set[str]:
    return {path.name for path in Path(config.out).iterdir() if path.suffix != ".db"}


@pytest.fixture
def make(run_config: Callable[..., RunConfig], tmp_path: Path) -> Callable[[str], RunConfig]:
    def config(name: str) -> RunConfig:
        keys = {"out": str(tmp_path / name), "train": {"epochs": 2}, "parallel": {"workers": 0}, "tune": TUNE}
        return run_config(system="tests.distributed.runtime.test_tuning_deaths:Dying", **keys)

    return config


@pytest.fixture
def wanted(make: Callable[[str], RunConfig]) -> RunConfig:
    config = make("wanted")
    done = search(config, "0")
    assert done.returncode == 0, done.stderr[-2000:]
    assert [trial[1] for trial in found(config)] == [FINISHED] * 2
    return config


def test_a_driver_dies(make: Callable[[str], RunConfig], wanted: RunConfig) -> None:
    # At the first snapshot of Ray's, before the second and before the last file of the search's own.
    for at in ("begun", "3", "5"):
        config = make(f"at-{at}")
        died = search(config, at)
        assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
        again = search(config, "0")
        assert again.returncode == 0, again.stderr[-2000:]
        assert found(config) == found(wanted)
        assert files(config) == files(wanted)
        best = [(Path(c.out) / "best.toml").read_text().replace(c.out, "") for c in (config, wanted)]
        assert best[0] == best[1]


def test_a_trial_dies(make: Callable[[str], RunConfig], wanted: RunConfig, tmp_path: Path) -> None:
    mark, config = tmp_path / "mark", make("trial")
    mark.write_text("12")
    done = search(config, "0", **{MARK: str(mark)})
    assert done.returncode == 0, done.stderr[-2000:]
    assert not mark.exists()
    assert found(config) == found(wanted)
