"""Phases on Ray: killed in either, at other sizes, over before Ray starts, searched by the last phase."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.config import RunConfig, load, to_json
from rec.errors import ConfigError, TrainingError
from rec.runtime.training import AttemptFailure, killed_for_memory, train
from rec.runtime.tuning import search
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from rec.train.job import train_here
from rec.tuning.results import read_trials
from rec.tuning.trial import FINISHED
from tests.distributed.runtime.test_phase_ranks import RISING, close
from tests.support.toy_phases import toy_table

pytestmark = [pytest.mark.ray, pytest.mark.slow]
Make = Callable[..., RunConfig]
FAULTY = "tests.support.toy_phases:FaultyToy"
ROOT = Path(__file__).resolve().parents[3]
KEYS: dict[str, Any] = {"phases": RISING, "checkpoint_steps": 4}


def quiet(_: Any) -> None:
    """Say nothing."""


@pytest.fixture
def toy(run_config: Make, tmp_path: Path) -> Make:
    """A run of the toy; `fault` breaks it as tests.support.faults says."""

    def make(fault: str = "", times: int = 1, **changes: Any) -> RunConfig:
        if fault:
            (tmp_path / "marker").write_text(str(times))
            changes["model"] = changes.get("model", {}) | {"fault": fault, "marker": str(tmp_path / "marker")}
            changes["system"] = FAULTY
        return run_config(**toy_table(**changes))

    return make


def history(config: RunConfig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Storage(config.out).read("history.json"))
    return found


@pytest.mark.parametrize("ep", [1, 2])
# A worker's loss is asked for at 6 steps and a batch of validation in each of two epochs, then comes the second phase.
@pytest.mark.parametrize("call", [10, 20], ids=["first", "second"])
def test_a_worker_killed_in_either_phase_costs_nothing_but_time(
    ray_runtime: None, toy: Make, tmp_path: Path, ep: int, call: int
) -> None:
    wanted = train_here(toy(out=str(tmp_path / "alone"), train=KEYS), quiet, quiet)
    said: list[str] = []
    config = toy(f"kill@loss:{call}", train=KEYS, parallel={"workers": 2, "expert_parallel": ep})
    train(config, quiet, said.append)
    assert any("failure 1 of at most 3" in line and "rank 1" in line for line in said), said
    close(history(config), wanted.history)
    assert CheckpointStore(Storage(config.out).below("checkpoints")).load(30).tensors["model.fits"] == 1


def test_a_run_goes_on_inside_the_second_phase_at_other_sizes(ray_runtime: None, toy: Make, tmp_path: Path) -> None:
    wanted = train_here(toy(out=str(tmp_path / "alone"), train=KEYS | {"epochs": 3}), quiet, quiet)
    for epochs, workers, ep in ((1, 2, 2), (2, 3, 1), (3, 1, 1)):
        # The first phase has epochs of its own.
        keys = KEYS | {"epochs": 3, "schedule": "constant", "phases": {**RISING, "experts": {"epochs": epochs}}}
        train(toy(train=keys, parallel={"workers": workers, "expert_parallel": ep}), quiet, quiet)
    straight = toy(out=str(tmp_path / "straight"), train=KEYS | {"epochs": 3, "schedule": "constant"})
    wanted = train_here(straight, quiet, quiet)
    close(history(toy()), wanted.history)


def test_a_run_that_is_over_does_nothing_and_starts_no_ray(toy: Make, tmp_path: Path) -> None:
    config = toy(train=KEYS)
    train_here(config, quiet, quiet)
    folder = Path(config.out) / "checkpoints"
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}
    code = (
        "import sys, ray\n"
        "def never(*a, **k): raise AssertionError('Ray was started')\n"
        "ray.init = never\n"
        "from rec.config import from_json\n"
        "from rec.runtime.launch import train\n"
        "train(from_json(sys.argv[1]), print, print)\n"
    )
    text = to_json(toy(train=KEYS, parallel={"workers": 2}))
    done = subprocess.run([sys.executable, "-c", code, text], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "nothing left to train: all 2 epochs are trained, up to step 30; raise train.epochs" in done.stdout
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()} == before


def test_what_is_wrong_with_phases_is_said_before_ray_starts(toy: Make) -> None:
    with pytest.raises(ConfigError, match=r"train.phases.second: no such phase; there are autoencoder, experts"):
        train(toy(train={"phases": {"second": {}}}, parallel={"workers": 2}), quiet, quiet)
    with pytest.raises(ConfigError, match=r"train.phases.experts.batch_size: must be a multiple of 2 workers, got 33"):
        train(toy(train={"phases": {"experts": {"batch_size": 33}}}, parallel={"workers": 2}), quiet, quiet)
    tuned = toy(train={"phases": {"second": {}}}, tune={"space": {"train.learning_rate": {"log": [1e-3, 1e-2]}}})
    with pytest.raises(ConfigError, match="no such phase"):
        search(tuned, quiet)


@pytest.mark.parametrize(
    ("raised", "before", "wanted"),
    [
        ({0: ("ValueError", "row #", 4), 1: ("ValueError", "row #", 4)}, None, True),
        ({0: ("ValueError", "row #", 4), 1: ("ValueError", "row #", 5)}, None, False),  # not the same step
        ({1: ("ValueError", "row #", 4)}, None, False),  # one rank alone may have had bad luck
        ({1: ("ValueError", "row #", 4)}, {1: ("ValueError", "row #", 4)}, True),  # twice it has not
        ({1: ("ValueError", "row #", 6)}, {1: ("ValueError", "row #", 4)}, False),
        ({0: ("OSError", "disk", 4), 1: ("OSError", "disk", 4)}, None, False),
        ({0: ("MemoryError", "", 4), 1: ("MemoryError", "", 4)}, None, False),  # another process may have had it
        ({0: ("MemoryError", "", 4)}, {0: ("MemoryError", "", 4)}, True),
        ({1: ("OutOfMemoryError", "", 4)}, {1: ("OutOfMemoryError", "", 4)}, True),  # killed by Ray
        ({1: ("OutOfMemoryError", "", 9)}, {1: ("OutOfMemoryError", "", 4)}, False),
        (dict.fromkeys((0, 1), ("OutOfMemoryError", "CUDA out of memory", 0)), None, True),  # the model does not fit
        (dict.fromkeys((0, 1), ("RuntimeError", "mat# and mat# shapes cannot be multiplied", 0)), None, True),
        ({0: ("RuntimeError", "gloo: closed by peer", 4)}, {0: ("RuntimeError", "gloo: closed by peer", 4)}, False),
    ],
)
def test_what_would_only_repeat_itself(raised: Any, before: Any, wanted: bool) -> None:
    earlier = AttemptFailure("", 3, before) if before else None
    assert AttemptFailure("", 3, raised).would_repeat(earlier, 2) == wanted
    assert not AttemptFailure("", 8, {1: ("ValueError", "row #", 9)}).would_repeat(earlier, 2)


def test_workers_that_ray_kills_for_memory_are_known_by_what_it_says() -> None:
    from ray.exceptions import ActorDiedError, OutOfMemoryError
    from ray.train import WorkerGroupError

    failures = {
        0: OutOfMemoryError("Task was killed due to the node running low on memory."),
        1: ActorDiedError(),
        2: RuntimeError("a worker died: ray.exceptions.OutOfMemoryError: killed"),
    }
    found = killed_for_memory(WorkerGroupError("dead", failures), {0: {"kind": "step", "total_step": 7}})
    assert found == {0: ("OutOfMemoryError", "", 7), 2: ("OutOfMemoryError", "", 0)}


def test_an_exception_of_all_ranks_is_not_tried_again(ray_runtime: None, toy: Make) -> None:
    said: list[str] = []
    config = toy(model={"broken": True}, train=KEYS, parallel={"workers": 2})
    with pytest.raises(TrainingError, match=r"only repeat itself: .*row \d+ is not what .*stands in .*/error.txt$"):
        train(config, quiet, said.append)
    assert "Traceback (most recent call last)" in Storage(config.out).read("error.txt").decode()
    assert not any("starting again" in line for line in said)


def test_an_exception_of_one_rank_is_tried_once_more(ray_runtime: None, toy: Make) -> None:
    said: list[str] = []
    with pytest.raises(TrainingError, match=r"only repeat itself: .*a bug in one worker"):
        train(toy("bug@loss:2", times=9, train=KEYS, parallel={"workers": 2}), quiet, said.append)
    assert sum("starting again" in line for line in said) == 1


def test_a_search_compares_by_the_last_phase_though_the_first_is_longer(ray_runtime: None, toy: Make) -> None:
    config = toy(
        model={"first_epochs": 5},
        train={"phases": {"experts": {"metric": "val_loss"}}},
        tune={
            "trials": 3, "search": "random", "scheduler": "asha", "grace": 1, "reduction": 2, "seed": 1,
            "space": {"train.learning_rate": {"log": [1e-4, 1e-2]}},
        },
    )  # fmt: skip
    text = search(config, quiet)
    trials = read_trials(Storage(config.out))
    assert len(trials) == 3
    assert all(t.evaluations == 5 + len(t.curve) for t in trials)
    finished = [t for t in trials if t.status == FINISHED]
    assert finished
    assert all(len(t.curve) == 2 for t in finished)
    assert all(t.best["val_loss"] == min(t.curve) for t in trials)
    best = min(trials, key=lambda t: t.best["val_loss"])
    assert best.id in text.splitlines()[1]
    found = load(f"{config.out}/best.toml")
    assert found.train.learning_rate == best.point["train.learning_rate"]
    # The same command finds the search finished.
    search(config, quiet)
    assert len(read_trials(Storage(config.out))) == 3
