"""Training on Ray: equal to one process, and alive after whatever happens to workers, driver and files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

import ray

from rec.config import RunConfig, to_json
from rec.errors import ConfigError, DataError, TrainingError
from rec.runtime.training import train
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from rec.train.job import train_here
from rec.train.narrator import Narrator
from rec.train.training_record import read_training

pytestmark = [pytest.mark.ray, pytest.mark.slow]
Make = Callable[..., RunConfig]
FAULTY = "tests.support.faults:Faulty"
EXPERTS = {"feedforward_mixture": {"experts": 6, "per_row": 2, "z_weight": 0.001}}
ROOT = Path(__file__).resolve().parents[3]


def quiet(_: Any) -> None:
    """Say nothing."""


@pytest.fixture
def short(run_config: Make, tmp_path: Path) -> Make:
    """A run of two workers and two epochs that makes a checkpoint every four steps."""

    def make(fault: str = "", times: int = 1, **changes: Any) -> RunConfig:
        train = {"epochs": 2, "checkpoint_steps": 4, "clip_norm": 1.0} | changes.pop("train", {})
        parallel = {"workers": 2} | changes.pop("parallel", {})
        model = {"dropout": 0.0} | changes.pop("model", {})
        if fault:
            marker = tmp_path / "marker"
            marker.write_text(str(times))
            model |= {"fault": fault, "marker": str(marker)}
            changes["system"] = FAULTY
        return run_config(train=train, parallel=parallel, model=model, **changes)

    return make


def history(config: RunConfig) -> list[dict[str, Any]]:
    return json.loads(Storage(config.out).read("history.json"))


@pytest.mark.parametrize("workers", [1, 2])
def test_patience_in_examples_counts_those_of_all_workers(short: Make, ray_runtime: None, workers: int) -> None:
    keys = {"epochs": 12, "learning_rate": 1e-30, "checkpoint_steps": 0, "patience": 1, "patience_examples": 602}
    config = short(train=keys, parallel={"workers": workers})
    train(config, quiet, quiet)
    assert [record["epoch"] for record in history(config)] == [1, 2, 3]  # 301 examples an epoch


def expected(short: Make, tmp_path: Path) -> list[dict[str, Any]]:
    """What one undisturbed process finds without dropout: any number of workers must agree."""
    config = short(out=str(tmp_path / "expected"), parallel={"workers": 0})
    return train_here(config, quiet, quiet).history


def agree(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert [h["total_step"] for h in found] == [h["total_step"] for h in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert a["loss/ce"] == pytest.approx(b["loss/ce"], rel=1e-4)
        # A rank can flip where two scores nearly tie: a few of 300 users.
        assert a["ndcg@10"] == pytest.approx(b["ndcg@10"], abs=0.01)
        for name, value in a.items():
            if name.startswith("moe/"):  # an assignment can flip where two scores nearly tie
                assert value == pytest.approx(b[name], rel=0.02, abs=0.002), name


@pytest.mark.parametrize(
    ("parallel", "batch", "model"),
    # 301 users: the last step of 150 has one row, so two of three workers stand in.
    [
        ({"workers": 2}, 32, {}),
        ({"workers": 3, "zero_stage": 2}, 150, {}),
        ({"workers": 3, "zero_stage": 2, "expert_parallel": 3}, 150, EXPERTS),
    ],
    ids=["2", "3", "expert-parallel"],
)
def test_workers_find_what_one_process_finds(
    ray_runtime: None, short: Make, tmp_path: Path, parallel: dict[str, int], batch: int, model: dict[str, Any]
) -> None:
    config = short(parallel=parallel, train={"batch_size": batch}, model=model)
    events: list[dict[str, Any]] = []
    train(config, events.append, quiet)
    alone = short(out=str(tmp_path / "plain"), parallel={"workers": 0}, train={"batch_size": batch}, model=model)
    wanted = train_here(alone, quiet, quiet)
    agree(history(config), wanted.history)
    kinds = {e["kind"] for e in events}
    assert {"placed", "imported", "ready", "step", "evaluated", "saving", "saved"} <= kinds
    assert Storage(config.out).list() == ["checkpoints", "config.json", "history.json", "training.json"]
    recorded(config, [e["peak_memory_bytes"] for e in events if e["kind"] == "saving" and e["rank"] == 1])


def recorded(config: RunConfig, peaks_of_one: list[int]) -> None:
    """Check that a run's record is of all its workers."""
    found = read_training(Storage(config.out))
    assert found is not None
    (command,) = found["commands"]
    workers = config.parallel.workers
    assert command["workers"] == len(command["machines"]) == workers
    assert command["step"] == history(config)[-1]["total_step"]
    assert command["peak_memory_bytes"] > max(peaks_of_one) + (workers - 1) * 2**26
    assert found["end"]["over"]


@pytest.mark.parametrize(
    ("fault", "times", "experts"),
    # The second kill of a model that is being built hits the recovery from the first; that of a step comes after a
    # newer checkpoint, and counts as the first.
    [
        ("kill@model", 2, 0),
        ("kill@loss:6", 2, 2),
        ("kill@measure", 1, 0),
        ("kill@state", 1, 0),
        ("bug@loss:0", 1, 0),
    ],
)
def test_a_lost_worker_costs_nothing_but_time(
    ray_runtime: None, short: Make, tmp_path: Path, fault: str, times: int, experts: int
) -> None:
    model = {"feedforward_mixture": {"experts": experts}}
    config, said = short(fault, times, model=model, parallel={"expert_parallel": experts or 1}), []
    train(config, quiet, said.append)
    alone = short(out=str(tmp_path / "expected"), parallel={"workers": 0}, model=model)
    agree(history(config), train_here(alone, quiet, quiet).history)
    told = [f"failure {1 if 'loss' in fault else number} of at most 3" for number in range(1, times + 1)]
    failures = [line for line in said if "failure" in line]
    assert [line.split(":")[0] for line in failures] == told, said
    assert all("rank 1" in line for line in failures), said


def test_too_many_failures_end_the_run_and_say_where(ray_runtime: None, short: Make) -> None:
    with pytest.raises(TrainingError, match=r"gave up after 2 failures; the last: .*rank 1"):
        train(short("kill@loss:2", times=5, parallel={"max_failures": 1}), quiet, quiet)
    deadline = time.monotonic() + 10
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, "workers or placement groups were left behind"
        time.sleep(0.2)


def test_an_error_that_would_repeat_is_not_tried_again(ray_runtime: None, short: Make) -> None:
    said: list[str] = []
    with pytest.raises(TrainingError, match=r"^this will happen again$"):
        train(short("raise@loss:1", times=5), quiet, said.append)
    assert not any("starting again" in line for line in said)


def test_an_evaluation_longer_than_the_patience_is_not_taken_for_silence(ray_runtime: None, short: Make) -> None:
    said: list[str] = []
    config = short(
        system="tests.support.faults:SlowEvaluation",
        train={"epochs": 1, "evaluate_batch_size": 6},
        parallel={"stall_timeout_s": 13.0},
    )
    train(config, quiet, said.append)
    assert not any("starting again" in line for line in said), said
    command = read_training(Storage(config.out))["commands"][-1]  # type: ignore[index]
    assert command["step"] == 10
    assert history(config)[0]["total_step"] == 10


@pytest.mark.parametrize("place", ["loss:6", "measure"])
def test_a_rank_that_hangs_is_named_and_the_run_goes_on(
    ray_runtime: None, short: Make, tmp_path: Path, place: str
) -> None:
    config, said = short(f"sleep@{place}", parallel={"stall_timeout_s": 15.0}), []
    train(config, quiet, said.append)
    assert any("rank 1 made no progress for" in line for line in said), said
    agree(history(config), expected(short, tmp_path))


@pytest.mark.parametrize("model", [{}, EXPERTS], ids=["plain", "expert-parallel"])
def test_another_number_of_workers_goes_on(
    ray_runtime: None, short: Make, tmp_path: Path, model: dict[str, Any]
) -> None:
    train_keys = {"epochs": 3, "batch_size": 36}
    alone = short(out=str(tmp_path / "w"), parallel={"workers": 0}, train=train_keys, model=model)
    wanted = train_here(alone, quiet, quiet)
    for epochs, workers in ((1, 2), (2, 1), (3, 3)):
        parallel = {"workers": workers, "expert_parallel": workers if model else 1}
        config = short(parallel=parallel, train=train_keys | {"epochs": epochs}, model=model)
        train(config, quiet, quiet)
    agree(history(config), wanted.history)


def test_a_damaged_checkpoint_is_passed_over(ray_runtime: None, short: Make, tmp_path: Path) -> None:
    config = short(train={"epochs": 1})
    train(config, quiet, quiet)
    folder = Path(config.out) / "checkpoints"
    newest = sorted(folder.glob("step-*"))[-1]
    data = bytearray((newest / "optimizer-000-000.safetensors").read_bytes())
    data[-9] ^= 16
    (newest / "optimizer-000-000.safetensors").write_bytes(data)
    said: list[str] = []
    longer = short(train={"epochs": 2})
    train(longer, Narrator(said.append), said.append)
    assert any("damaged checkpoint passed over" in line and "optimizer-000-000.safetensors" in line for line in said)
    agree(history(longer), expected(short, tmp_path))


def test_what_is_wrong_is_said_before_a_machine_starts(short: Make) -> None:
    with pytest.raises(DataError, match="no prepared data set here"):
        train(short(data={"root": "/nowhere"}), quiet, quiet)
    with pytest.raises(ConfigError, match="top_k"):
        train(short(model={"top_k": 9}), quiet, quiet)
    assert not Path(short().out).exists()


def test_a_run_whose_end_could_not_be_told_is_told_before_a_machine_starts(short: Make) -> None:
    config = short(train={"epochs": 2, "checkpoint_steps": 0})
    train_here(config, quiet, quiet)
    storage = Storage(config.out)
    wanted = {name: storage.read(name) for name in ("history.json", "checkpoints/best.json")}
    record = storage.read_json("training.json")
    step = record["commands"][0]["step"]
    # As a worker and its driver leave it that are killed when the last checkpoint has its manifest.
    storage.write_json("training.json", record | {"end": record["end"] | {"epoch": 1, "over": False}})
    storage.write_json("history.json", storage.read_json("history.json")[:1])
    storage.write_json("checkpoints/best.json", {"step": step // 2})
    storage.write("ray/attempt/state", b"")
    said: list[str] = []
    train(config, quiet, said.append)
    assert "nothing left to train" in said[0]
    assert {name: storage.read(name) for name in wanted} == wanted
    assert storage.read_json("training.json") == record
    assert not storage.exists("ray")


def test_experts_that_are_not_there_cannot_be_spread(ray_runtime: None, short: Make) -> None:
    with pytest.raises(ConfigError, match=r"parallel.expert_parallel: the model has no experts to spread"):
        train(short(parallel={"expert_parallel": 2}), quiet, quiet)


def test_more_workers_than_the_cluster_holds_are_refused(ray_runtime: None, short: Make) -> None:
    with pytest.raises(ConfigError, match=r"the cluster has 4 CPUs, expected at least 32 for workers"):
        train(short(parallel={"workers": 32}, train={"batch_size": 64}), quiet, quiet)


def test_a_killed_driver_goes_on_by_the_same_command(short: Make, tmp_path: Path) -> None:
    steps_per_epoch = 10
    log = tmp_path / "log"
    code = "import sys; from rec.cli.run import train; from rec.config import from_json; train(from_json(sys.argv[1]))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"PYTHONPATH": str(ROOT)}

    def start(config: RunConfig) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code, to_json(config)]
        return subprocess.Popen(command, stdout=log.open("wb"), stderr=subprocess.STDOUT, env=environment, cwd=ROOT)

    endless = short(train={"epochs": 1000, "checkpoint_steps": 2})
    store = CheckpointStore(Storage(endless.out).below("checkpoints"))
    driver = start(endless)
    deadline = time.monotonic() + 200
    while not any(step >= 12 for step in store.steps()):
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    stood = -1
    while stood != (stood := store.steps()[-1]):  # workers outlive their driver for a moment
        time.sleep(3.0)
    train_keys = {"epochs": stood // steps_per_epoch + 2, "checkpoint_steps": 2}
    again = start(short(train=train_keys))
    assert again.wait(timeout=200) == 0, log.read_text()
    assert "going on from step" in log.read_text()
    wanted = train_here(short(out=str(tmp_path / "w"), parallel={"workers": 0}, train=train_keys), quiet, quiet)
    agree(history(endless), wanted.history)
