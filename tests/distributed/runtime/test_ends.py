"""Commands on Ray that are stopped: one true line, the shell's exit code, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

import psutil

from rec.cli import COMMANDS
from rec.config import RunConfig, to_toml
from rec.errors import ConfigError
from rec.runtime import cluster, launch
from rec.runtime.ports import free_port
from rec.runtime.served import FOLDER
from rec.runtime.training import train
from rec.runtime.tuning import search
from rec.train.config import ParallelConfig

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "line", "wait_s"),
    [(signal.SIGINT, "epoch 1:", 0.0), (signal.SIGTERM, "epoch 1:", 0.0), (signal.SIGINT, "starting Ray", 2.0)],
)
def test_training_that_is_stopped(
    number: signal.Signals, line: str, wait_s: float, run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(to_toml(run_config(parallel={"workers": 2}, train={"epochs": 500})))
    command = [sys.executable, "-m", "rec.cli", "train", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT)
    assert process.stderr is not None
    while line not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(wait_s)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    lines = process.stderr.read().splitlines()
    assert process.wait(60) == 128 + number
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert lines[-1].startswith(f"{word}; the same command goes on from the last checkpoint")
    assert not any("Traceback" in told for told in lines)
    _, left = psutil.wait_procs(family, timeout=10)
    assert not left
    assert not list(Path(tempfile.gettempdir()).glob(f"{FOLDER}{process.pid}-*"))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_search_that_is_stopped(number: signal.Signals, run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    space = {"train.learning_rate": {"log": [1e-3, 1e-2]}}
    keys = {"trials": 2, "concurrent": 1, "scheduler": "none", "space": space}
    config = tmp_path / "run.toml"
    config.write_text(to_toml(run_config(train={"epochs": 500}, tune=keys)))
    stopped(["tune", str(config)], number, "running 1", "the same command goes on with the search")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serving_that_is_stopped(number: signal.Signals, artifact: Any) -> None:
    words = ["serve", str(artifact.path), "--port", str(free_port())]
    stopped(words, number, "end with Ctrl-C", COMMANDS["serve"].INTERRUPTED)


def stopped(words: list[str], number: signal.Signals, line: str, told: str) -> None:
    """Stop a command once it has said a line; what it says last must be true, and nothing of it be left."""
    command = [sys.executable, "-m", "rec.cli", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT)
    assert process.stderr is not None
    while line not in process.stderr.readline():
        assert process.poll() is None
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    lines = process.stderr.read().splitlines()
    assert process.wait(60) == 128 + number, lines[-3:]
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert lines[-1] == f"{word}; {told}"
    assert not any("Traceback" in one for one in lines)
    _, left = psutil.wait_procs(family, timeout=15)
    assert not left
    assert not list(Path(tempfile.gettempdir()).glob(f"{FOLDER}{process.pid}-*"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"workers": 64}, r"parallel.workers: this machine has 2 CPUs, expected at least 64 for workers; lower it"),
        ({"workers": 2, "threads": 3}, r"parallel.workers: this machine has 2 CPUs, expected at least 6 for workers"),
        ({"workers": 1, "cpus_per_worker": 2.5}, r"parallel.threads: this machine has 2 CPUs, expected at least 2.5"),
        ({"workers": 2, "gpu": True}, r"parallel.workers: this machine has 0 GPUs, expected at least 2"),
        ({"workers": 2, "gpu": True, "gpus_per_worker": 0.25}, r"this machine has 0 GPUs, expected at least 0.5"),
        ({"workers": 1, "gpu": True}, r"parallel.gpu: this machine has 0 GPUs, expected at least 1 for workers; ask"),
    ],
)
def test_more_than_the_machine_has_is_refused(keys: dict, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "cores", lambda: 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ConfigError, match=message):
        cluster.require_machine(cluster.Demand.by_workers(ParallelConfig(**keys)))


@pytest.mark.parametrize("keys", [{"workers": 2}, {"workers": 64, "cpus_per_worker": 0.03125}, {"workers": 0}])
def test_what_the_machine_has_is_taken(keys: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "cores", lambda: 2)
    cluster.require_machine(cluster.Demand.by_workers(ParallelConfig(**keys)))


@pytest.mark.parametrize(
    ("each", "nodes", "fit"),
    [
        ({"CPU": 2.0}, [{"CPU": 3.0}, {"CPU": 3.0}], 2),
        ({"CPU": 0.1}, [{"CPU": 0.3}], 3),
        ({"CPU": 1.0, "GPU": 1.0}, [{"CPU": 16.0}, {"CPU": 4.0, "GPU": 8.0}], 4),
        ({"CPU": 1.0, "GPU": 0.5}, [{"CPU": 16.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 8.0}], 3),
        ({"CPU": 1.0, "GPU": 1.0}, [], 0),
    ],
)
def test_how_many_fit_none_of_them_on_two_nodes(each: dict, nodes: list, fit: int) -> None:
    assert cluster.fitting(each, nodes) == fit


@pytest.mark.parametrize(
    ("keys", "jobs"),
    [({"workers": 2}, 4), ({"workers": 2, "gpu": True}, 1), ({"gpu": True, "gpus_per_worker": 0.25}, 8), ({}, 8)],
)
def test_a_search_has_as_many_trials_at_once_as_cpus_and_gpus_allow(
    keys: dict, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "living_nodes", lambda: {"one": {"CPU": 9.0, "GPU": 2.0}})
    assert cluster.together(cluster.Demand.by_workers(ParallelConfig(**keys))) == jobs


def test_what_is_too_scattered_is_refused() -> None:
    demand = cluster.Demand.by_workers(ParallelConfig(workers=2, threads=4, gpu=True))
    cluster._require_nodes(demand, [{"CPU": 9.0, "GPU": 2.0}])
    found = r"parallel.workers: .* room for 1 workers of 4 CPUs and 1 GPU each, expected 2: one needs all of it on one"
    with pytest.raises(ConfigError, match=found):
        cluster._require_nodes(demand, [{"CPU": 9.0, "GPU": 1.0}, {"CPU": 3.0, "GPU": 1.0}])


@pytest.mark.parametrize("keys", [{"gpus_per_worker": 0.5}, {"gpus_per_worker": 0.25, "workers": 4}])
def test_ranks_that_would_share_a_gpu_are_refused_before_ray_starts(
    run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, keys: dict
) -> None:
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    config = run_config(parallel={"workers": 2, "gpu": True} | keys)
    for begin in (train, launch.train):
        with pytest.raises(ConfigError, match=r"parallel.gpus_per_worker: 0.* ranks on one GPU, which NCCL refuses"):
            begin(config, lambda _: None, lambda _: None)
    with pytest.raises(ConfigError, match="which NCCL refuses"):
        search(config, lambda _: None)


@pytest.mark.parametrize("keys", [{"workers": 1, "gpus_per_worker": 0.5}, {"workers": 2}, {"gpus_per_worker": 1.0}])
def test_ranks_with_a_gpu_each_or_alone_are_not_refused(keys: dict) -> None:
    cluster.refuse_shared_gpus(ParallelConfig(gpu=True, **keys))


@pytest.mark.ray
@pytest.mark.slow
def test_gpus_that_the_cluster_lacks_are_refused_before_workers_are_placed(
    ray_runtime: None, run_config: Callable[..., RunConfig]
) -> None:
    config = run_config(parallel={"workers": 2, "gpu": True})
    with pytest.raises(ConfigError, match=r"parallel.workers: the cluster has 0 GPUs, expected at least 2 for workers"):
        train(config, lambda _: None, lambda _: None)


def test_too_many_workers_are_refused_before_ray_starts(
    run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    config = run_config(parallel={"workers": 512}, train={"batch_size": 512})
    with pytest.raises(ConfigError, match="expected at least 512 for workers"):
        train(config, lambda _: None, lambda _: None)


def test_a_cluster_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("ray client connection timeout\nfurther words")

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(
        ConfigError, match=r"RAY_ADDRESS: no cluster answers at '10.0.0.1:6379' \(ray client.*; further"
    ):
        cluster.connect()
