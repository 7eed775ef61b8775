"""Predicting on Ray: the same numbers as in this process, and what is lost on the way is made again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.cli import main
from rec.config import RunConfig, override, to_toml
from rec.errors import CheckpointError
from rec.evaluation.predict import PredictionOrder, predict
from rec.evaluation.predictor import predict_here
from rec.evaluation.run import evaluate_run
from rec.runtime.predict import predict_on_ray
from rec.train.job import train_here
from tests.end_to_end.systems.test_nlammr_runs import run_of

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[3]


def quiet(_: Any) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def slow(trained: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run that takes its time for every batch: there is a moment to kill something."""
    out = tmp_path_factory.mktemp("slow") / "run"
    config = override(trained, ['system="tests.support.faults:Slow"', f"out={out}", "train.epochs=1"])
    train_here(config, quiet, quiet)
    return config


def order(config: RunConfig, folder: Path, *words: str, **changes: Any) -> PredictionOrder:
    config = override(config, ["train.evaluate_batch_size=16", "parallel.workers=2", *words])
    return replace(PredictionOrder(config=config, folder=str(folder), split="test"), **changes)


def sums(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the names and checksums of all files with answers or records."""
    return [(entry["name"], entry["sha256"]) for entry in manifest["files"]]


def parts_in(folder: Path) -> dict[str, int]:
    """Return when each part was whole."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "parts").glob("*.json")}


def wait_for_parts(folder: Path, count: int, timeout_s: float = 120.0) -> None:
    end_s = time.monotonic() + timeout_s
    while len(parts_in(folder)) < count:
        assert time.monotonic() < end_s, f"{len(parts_in(folder))} of {count} parts after {timeout_s} s"
        time.sleep(0.02)


def actors(driver: int | None = None) -> list[psutil.Process]:
    """Return the processes that hold a model to predict with, below this process or another driver."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            found += [process] if "_Actor" in " ".join(process.cmdline()) else []
        except psutil.Error:
            continue
    return found


def test_actors_write_what_this_process_writes(ray_runtime: None, trained: RunConfig, tmp_path: Path) -> None:
    here = predict(order(trained, tmp_path / "here"), predict_here, quiet)
    there = predict(order(trained, tmp_path / "there"), predict_on_ray, quiet)
    assert sums(here) == sums(there)
    expected = evaluate_run(order(trained, tmp_path).config, "test")["metrics"]
    assert evaluate_run(order(trained, tmp_path).config, "test", str(tmp_path / "there"))["metrics"] == expected


def measured(config: RunConfig, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Return what `rec evaluate` prints and writes: checksums of all files but that of what it cost."""
    assert main(["evaluate", config.out, "train.evaluate_batch_size=16", "--all", *words]) == 0
    folder = Path(config.out) / "evaluation" / "test"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    cost = json.loads(files.pop("measurement.json"))
    assert len(files) >= 3
    return {"printed": capsys.readouterr().out, "files": files, "workers": cost["workers"]}


@pytest.mark.parametrize("system", ["ranking", "sets"])
def test_two_workers_measure_what_one_process_measures(
    system: str, ray_runtime: None, trained: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = trained if system == "ranking" else run_of(tmp_path, "visits", epochs=1, unit_texts=False)
    here = measured(config, capsys)
    assert "jaccard" in here["printed"] if system == "sets" else "ndcg@10" in here["printed"]
    there = measured(config, capsys, "--workers", "2")
    assert (here.pop("workers"), there.pop("workers")) == (0, 2)
    assert there == here


def test_an_actor_that_is_killed_is_started_again(ray_runtime: None, slow: RunConfig, tmp_path: Path) -> None:
    asked = order(slow, tmp_path / "p")
    killed: list[int] = []

    def kill() -> None:
        wait_for_parts(tmp_path / "p", 2)
        process = actors()[0]
        killed.append(process.pid)
        process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    found = predict(asked, predict_on_ray, quiet)
    thread.join()
    assert killed
    assert len(found["files"]) == 2 * len(parts_in(tmp_path / "p"))
    whole = predict(replace(asked, folder=str(tmp_path / "whole")), predict_here, quiet)
    assert sums(found) == sums(whole)
    assert not [path for path in (tmp_path / "p" / "answers").iterdir() if path.name.endswith(".tmp")]


def test_a_killed_command_goes_on_where_it_was(ray_runtime: None, slow: RunConfig, tmp_path: Path) -> None:
    asked = order(slow, tmp_path / "p")
    file = tmp_path / "run.toml"
    file.write_text(to_toml(asked.config))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "REC_PRIVATE"))}
    words = [sys.executable, "-m", "rec.cli", "predict", str(file), "--to", str(tmp_path / "p")]
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(words, stdout=log, stderr=log, env=environment, cwd=ROOT)
    try:
        wait_for_parts(tmp_path / "p", 4)
    finally:
        started = psutil.Process(driver.pid).children(recursive=True)
        workers = actors(driver.pid)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        _, alive = psutil.wait_procs(workers, timeout=60)
        for process in started:  # Ray's agents outlive it for a while
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    assert workers
    assert not alive
    before = parts_in(tmp_path / "p")
    assert not (tmp_path / "p" / "manifest.json").exists()
    found = predict(asked, predict_on_ray, quiet)
    after = parts_in(tmp_path / "p")
    assert 4 <= len(before) < len(after)
    assert before.items() <= after.items()
    whole = predict(replace(asked, folder=str(tmp_path / "whole")), predict_here, quiet)
    assert sums(found) == sums(whole)
    rows = pq.read_table(tmp_path / "p" / "answers", columns=["row"])["row"].to_pylist()
    assert rows == list(range(301))


def test_an_error_of_ours_in_an_actor_ends_the_command(ray_runtime: None, trained: RunConfig, tmp_path: Path) -> None:
    asked = order(trained, tmp_path / "p")
    with pytest.raises(CheckpointError, match="predictions were begun with step 1;"):
        predict(asked, lambda o, claim, parts, told: predict_on_ray(o, {**claim, "step": 1}, parts, told), quiet)


def test_requests_are_answered_by_actors(ray_runtime: None, trained: RunConfig, tmp_path: Path) -> None:
    lines = [f'{{"history": ["{n}"]}}' for n in range(40)] + ["{broken"]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    asked = order(trained, tmp_path / "there", split=None, requests=str(tmp_path / "r.jsonl"))
    there = predict(asked, predict_on_ray, quiet)
    here = predict(replace(asked, folder=str(tmp_path / "here")), predict_here, quiet)
    assert sums(here) == sums(there)
    assert there["errors"] >= 1
