"""`rec submit`: what travels, what is shown, and jobs on a cluster of two real nodes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

import asyncio

from rec.cli import main
from rec.errors import ConfigError, RequestError
from rec.progress import CLEARED, Merged
from rec.runtime import submit
from rec.runtime.local_cluster import LocalCluster

ROOT = Path(__file__).resolve().parents[3]


def test_what_is_left_out_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("mine.toml", 10), ("code.py", 20), ("out/big", 5000), ("raw/a.csv", 300), (".git/x", 7)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / ".gitignore").write_text("out/\n")
    ignore = len("out/\n")
    assert submit.packed(tmp_path, []) == (4, 10 + 20 + 300 + ignore)
    assert submit.packed(tmp_path, ["raw/"]) == (3, 10 + 20 + ignore)
    monkeypatch.setattr(submit, "MOST_BYTES", 100)
    assert submit.packed(tmp_path, ["raw/"]) == (3, 10 + 20 + ignore)
    with pytest.raises(RequestError, match=r"0 MiB in 4 files, expected at most 0; largest are raw 0 MiB, code.py"):
        submit.packed(tmp_path, [])


def test_progress_of_a_job_is_one_line_of_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    lines = ["prepare: generate 1/8", "out/run: trained", "waiting for workers, 1 min 05 s so far", "epoch 1/2: done"]
    stream, plain = Terminal(), io.StringIO()
    for line in lines:
        Merged(stream).show(line)
        Merged(plain).show(line)
    first, second, third, fourth = lines
    assert stream.getvalue() == f"{CLEARED}{first}{CLEARED}{second}\n{CLEARED}{third}{CLEARED}{fourth}\n"
    assert plain.getvalue().splitlines() == lines


class Chunks:
    """What a cluster sends, from the first line on for every connection, which may end too early."""

    def __init__(self, *connections: list[str]) -> None:
        self.connections = iter(connections)

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        for text in next(self.connections):
            yield text


def test_a_log_is_shown_once_over_several_connections() -> None:
    shown: list[str] = []
    log = submit._Log(shown.append)
    client: Any = Chunks(["one\ntw"], ["on", "e\ntwo\nth"], ["one\ntwo\nthree"])
    for _ in range(3):
        asyncio.run(log.read(client, "job"))
    log.end()
    assert shown == ["one", "two", "three"]
    assert log.last == "three"


def test_where_nothing_answers_is_told_at_once() -> None:
    start_s = time.monotonic()
    with pytest.raises(ConfigError, match=r"--address: no cluster answers at http://127.0.0.1:1; name that of its"):
        submit.connected("127.0.0.1:1")
    assert time.monotonic() - start_s < submit.CONNECT_S


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "expected a JOB, or one of --follow, --stop and --list"),
        (["train", "--list"], "expected a JOB, or one of --follow, --stop and --list"),
        (["train", "rec/configs/demo.toml"], "out: 'out/demo/run' is relative, and the job's folder ends with the job"),
        (["train", "rec/configs/demo.toml", "out=/r"], "data.root: 'out/demo/data' is relative"),
        (["train", "rec/configs/demo.toml", "train.epoch=1"], "train.epoch: unknown key; did you mean 'epochs'?"),
        (["train", "--working-dir", "/nowhere"], "--working-dir /nowhere: there is no such folder"),
    ],
)
def test_what_cannot_be_is_refused_before_a_cluster_is_asked(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(submit.ADDRESS, "http://127.0.0.1:1")
    assert main(["submit", *words]) == 1
    assert told in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a small config whose results lie elsewhere."""
    made = tmp_path_factory.mktemp("work")
    text = (ROOT / "rec/configs/demo.toml").read_text()
    text = text.replace("out/demo/run", f"{made}-results/run").replace("out/demo/data", f"{made}-results/data")
    (made / "mine.toml").write_text(text.replace("interactions = 100_000", "interactions = 4000"))
    return made


Client = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def client(local_nodes: LocalCluster, folder: Path) -> Client:
    """Return a function that starts `rec submit` on this machine, outside of the cluster's network."""

    def start(*words: str, **environment: str) -> subprocess.Popen[str]:
        mine = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        mine |= {**local_nodes.client, "PYTHONPATH": str(ROOT), **environment}
        command = [sys.executable, "-m", "rec.cli", "submit", *words]
        pipe, both = subprocess.PIPE, subprocess.STDOUT
        return subprocess.Popen(command, env=mine, cwd=folder, stdout=pipe, stderr=both, text=True)

    return start


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Return the exit code and lines of a client."""
    told, _ = process.communicate(timeout=200)
    return process.returncode, told.splitlines()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_exit_codes_and_last_lines_are_the_jobs(client: Client) -> None:
    code, lines = ended(client("prepare", "mine.toml", "parallel.workers=0"))
    assert code == 0, lines
    name = lines[0].split(":")[0]
    assert "submitted with 1 file of " in lines[0]
    assert "view 'sequences': rows" in lines[-1]
    again, seen = ended(client("--follow", name))
    assert (again, seen) == (0, lines[1:])
    code, lines = ended(client("train", "mine.toml", "parallel.workers=0", "data.root=/nothing/here"))
    assert code == 1, lines
    assert lines[-1].startswith("error: ")
    assert "/nothing/here" in lines[-1]
    # A config that cannot be is checked while it is submitted, and the job ends.
    code, lines = ended(client("train", "mine.toml", "train.epoch=1"))
    assert (code, lines[-1]) == (1, "error: train.epoch: unknown key; did you mean 'epochs'?")
    name = lines[0].split(":")[0]
    end_s = time.monotonic() + 60  # a job that is told to stop is given a while
    while (state := next(line.split()[1] for line in ended(client("--list"))[1] if name in line)) == "running":
        assert time.monotonic() < end_s
    assert state in ("stopped", "failed")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_outlives_its_client_and_is_stopped(client: Client) -> None:
    assert ended(client("prepare", "mine.toml", "parallel.workers=0"))[0] == 0
    first = client("train", "mine.toml", "parallel.workers=0", "train.epochs=100000", "train.patience=100000")
    assert first.stdout is not None
    name = first.stdout.readline().split(":")[0]
    assert any("epoch 1:" in line for line in first.stdout)
    first.send_signal(signal.SIGKILL)
    first.wait()
    code, lines = ended(client("--list"))
    assert code == 0
    assert [line.split()[1] for line in lines if name in line] == ["running"]
    second = client("--follow", name)
    assert second.stdout is not None
    assert any("epoch 1:" in line for line in second.stdout)  # from its first line on
    assert ended(client("--stop", name)) == (0, [f"{name}: stopped"])
    code, lines = ended(second)
    assert (code, lines[-1]) == (submit.STOPPED, f"error: {name} was stopped")
    assert ended(client("--stop", name)) == (0, [f"{name}: had ended already"])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_strangers_and_unknown_jobs_are_told(client: Client) -> None:
    code, lines = ended(client("--list", RAY_AUTH_TOKEN="0" * 64))
    assert code == 1
    assert "error: RAY_AUTH_TOKEN: the cluster at http://10.203." in lines[-1]
    assert lines[-1].endswith("refuses this client: the token is not the one of the cluster")
    for option in ("--follow", "--stop"):
        code, lines = ended(client(option, "rec-train-none"))
        assert (code, lines[-1]) == (
            1,
            "error: rec-train-none: the cluster knows no such job; rec submit --list names them",
        )
