"""`ray job submit` against a real local cluster with token authentication on."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[3]
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of one node, started as an operator would, and the environment of a client that may use it."""
    folder = Path("/tmp") / f"rec-jobs-{secrets.token_hex(4)}"  # sockets below it must have short names
    port, dashboard = free_port(), free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    start = [RAY, "start", "--head", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=4"]
    start += ["--include-dashboard=true", f"--temp-dir={folder}", "--disable-usage-stats", "--block"]
    start += ["--dashboard-agent-listen-port=0"]  # the usual port may be another runtime's, and then no job starts
    log = (tmp_path_factory.mktemp("cluster") / "log").open("w")
    head = subprocess.Popen(start, env=environment, stdout=log, stderr=log)
    client = environment | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    try:
        for _ in range(60):
            listed = subprocess.run([RAY, "job", "list"], env=client, capture_output=True, check=False, timeout=60)
            if listed.returncode == 0:
                break
        else:
            pytest.fail(f"the cluster did not come up: {listed.stderr.decode()[-500:]}")
        yield client
    finally:
        head.terminate()
        try:
            head.wait(60)
        except subprocess.TimeoutExpired:
            head.kill()
        for _ in range(20):  # the node's processes end one after the other, and write until they do
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.5)


def submit(cluster: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """Submit a job; a node that has just started says for a while that its agent is not up yet."""
    words = [RAY, "job", "submit", "--working-dir", str(ROOT), "--runtime-env-json", EXCLUDES, "--", *command]
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(words, env=cluster, capture_output=True, text=True, check=False, timeout=400)
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


EXCLUDES = '{"excludes": [".venv", ".git", "out", "**/__pycache__"]}'


def test_prepare_and_train_run_as_jobs(cluster: dict[str, str], tmp_path: Path) -> None:
    small = [f"out={tmp_path}/run", f"data.root={tmp_path}/data", "data.read.interactions=5000"]
    small += ["train.epochs=1", "model.blocks=1"]
    python = sys.executable
    prepared = submit(cluster, python, "jobs/prepare.py", "rec/configs/demo.toml", *small)
    assert prepared.returncode == 0, prepared.stdout[-3000:] + prepared.stderr[-1000:]
    trained = submit(cluster, python, "jobs/train.py", "rec/configs/demo.toml", *small)
    assert trained.returncode == 0, trained.stdout[-3000:] + trained.stderr[-1000:]
    assert (tmp_path / "run" / "checkpoints" / "best.json").exists()


def test_a_failed_job_exits_non_zero_and_ends_with_the_cause(cluster: dict[str, str]) -> None:
    failed = submit(cluster, sys.executable, "jobs/train.py", "rec/configs/demo.toml", "train.epoch=1")
    assert failed.returncode != 0
    assert "error: train.epoch: unknown key; did you mean 'epochs'?" in failed.stdout


def test_a_client_without_the_token_is_refused(cluster: dict[str, str]) -> None:
    stranger = cluster | {"RAY_AUTH_TOKEN": "0" * 64}
    refused = subprocess.run(
        [RAY, "job", "list"], env=stranger, capture_output=True, text=True, check=False, timeout=60
    )
    assert refused.returncode != 0
