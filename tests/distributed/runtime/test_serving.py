"""`rec serve` as people run it, in a process of its own: answers, faults under load, upgrades and the way back."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from rec.runtime.served import FOLDER, STATE
from rec.serving.artifact import MANIFEST, Artifact
from rec.storage import Storage

pytestmark = pytest.mark.ray
TOKEN = "let-me-in"


@dataclass
class Served:
    """A `rec serve` of two artifacts."""

    process: subprocess.Popen[str]
    port: int
    folder: Path
    lines: list[str] = field(default_factory=list)

    def ask(self, path: str, body: Any = None, token: str = TOKEN, connection: Any = None) -> tuple[int, Any]:
        """Return status and answer of one request."""
        connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        connection.request("POST" if body is not None else "GET", path, body and json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one `rec` command beside it."""
        command = [sys.executable, "-m", "rec.cli", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


@pytest.fixture(scope="module")
def served(artifact: Artifact, tmp_path_factory) -> Iterator[Served]:
    from rec.runtime.ports import free_port

    folder = tmp_path_factory.mktemp("served")
    for name in ("one", "two"):
        shutil.copytree(artifact.path, folder / name)
    port = free_port()
    command = [sys.executable, "-m", "rec.cli", "serve", str(folder / "one"), str(folder / "two"), "--port", str(port)]
    command += ["serve.token=true", "serve.replicas=2", "serve.cpus_per_replica=0.5", "serve.max_k=20"]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"REC_SERVE_TOKEN": TOKEN}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    found = Served(process, port, folder)
    assert process.stderr is not None
    while not any("rec upgrade" in line for line in found.lines):
        line = process.stderr.readline()
        assert line, f"ended: {found.lines}"
        found.lines.append(line)
    threading.Thread(target=process.stderr.read, daemon=True).start()
    yield found
    process.kill()


class Load(threading.Thread):
    """Clients that ask without a pause and count what they get.

    A kept connection that the proxy closed before it answered, as it may when it reloads, is opened anew and counted
    apart: so do browsers and HTTP libraries.
    """

    def __init__(self, served: Served, path: str) -> None:
        super().__init__()
        self.served, self.path, self.ended = served, path, threading.Event()
        self.seen: Counter[str] = Counter()

    def run(self) -> None:
        connection, fresh = http.client.HTTPConnection("127.0.0.1", self.served.port, timeout=20), True
        while not self.ended.is_set():
            try:
                status, _ = self.served.ask(self.path, {"user": "u3", "k": 5}, connection=connection)
                self.seen[str(status)] += 1
                fresh = False
            except (OSError, ValueError, http.client.HTTPException) as error:
                closed = isinstance(error, http.client.RemoteDisconnected | ConnectionError) and not fresh
                self.seen["reopened" if closed else type(error).__name__] += 1
                connection.close()
                fresh = True
                continue
            time.sleep(0.005)


def nothing_failed(load: list[Load], kills: int = 0) -> int:
    """Check that requests were answered, and return how many were.

    A request whose replica is killed between the head and the body of its answer cannot be sent to another one, and
    one of thousands may be cut off when the proxy reloads.
    """
    seen = sum((thread.seen for thread in load), Counter())
    print(seen)
    lost = sum(seen.values()) - seen["200"] - seen["reopened"]
    assert lost <= kills + 1, seen
    assert seen["reopened"] <= 0.01 * seen["200"], seen
    return seen["200"]


@pytest.fixture
def load(served: Served) -> Iterator[list[Load]]:
    threads = [Load(served, "/one/v1/recommend") for _ in range(4)]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.ended.set()
        thread.join()


def replicas(name: str) -> list[psutil.Process]:
    found = [p for p in psutil.process_iter(["cmdline"]) if f"Replica:{name}:" in " ".join(p.info["cmdline"] or [])]
    return sorted(found, key=lambda p: p.pid)


def answering(served: Served) -> set[str]:
    """Return the replicas that answer."""
    return {served.ask("/one/v1/health")[1]["replica"] for _ in range(20)}


def test_every_artifact_answers_as_it_was_exported(served: Served, artifact: Artifact) -> None:
    example = artifact.example()
    for name in ("one", "two"):
        for _ in range(6):  # whichever replica
            status, answer = served.ask(f"/{name}{example['path']}", example["request"])
            assert status == 200
            assert [i["item"] for i in answer["items"]] == [i["item"] for i in example["answer"]["items"]]
            scores = [i["score"] for i in answer["items"]]
            assert scores == pytest.approx([i["score"] for i in example["answer"]["items"]], abs=1e-5)
        assert served.ask(f"/{name}/v1/health")[1]["artifact"] == name
    assert served.ask("/one/v1/model", token="wrong")[0] == 401
    assert served.ask("/one/v1/recommend", {"user": "u1", "k": 21})[0] == 422
    assert served.ask("/one/v1/nothing")[0] == 404


def test_prometheus_sees_requests_and_shares(served: Served) -> None:
    served.ask("/two/v1/recommend", {"history": ["i1", "i2"], "explain": True})
    (address,) = [line.split()[-1] for line in served.lines if "Prometheus" in line]
    port = int(address.split(":")[2].split("/")[0])
    wanted = {"rec_requests", "rec_share", "rec_batches", "rec_request_p99_seconds"}
    deadline_s = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        lines = [line for line in text.splitlines() if line.startswith("ray_rec") and 'artifact="two"' in line]
        if all(any(name in line for line in lines) for name in wanted):
            break
        assert time.monotonic() < deadline_s, f"{wanted} in {lines[:3]}"
        time.sleep(1)
    assert any('kind="expert"' in line for line in lines)
    assert any('kind="modality"' in line for line in lines)


def test_no_request_fails_when_replicas_are_killed_under_load(served: Served, load: list[Load]) -> None:
    time.sleep(1)
    for _ in range(2):
        before = answering(served)
        assert len(before) == 2
        replicas("one")[0].kill()
        deadline_s = time.monotonic() + 60
        # The other one is not killed before the new one answers: with none left there is nowhere to send a request.
        while len(now := answering(served)) < 2 or now == before:
            assert time.monotonic() < deadline_s, "no new replica"
    assert nothing_failed(load, kills=2) > 300


def test_an_upgrade_under_load_loses_nothing(served: Served, load: list[Load]) -> None:
    second = served.folder / "one-v2"
    shutil.copytree(served.folder / "one", second)
    manifest = json.loads((second / MANIFEST).read_text())
    (second / MANIFEST).write_text(json.dumps(manifest | {"step": 777}))
    done = served.command("upgrade", "one", str(second))
    assert done.returncode == 0, done.stderr
    assert "one: now" in done.stderr
    assert {served.ask("/one/v1/health")[1]["step"] for _ in range(10)} == {777}
    assert nothing_failed(load) > 100


def test_an_artifact_whose_example_differs_is_rolled_back_without_a_gap(served: Served, load: list[Load]) -> None:
    bad = served.folder / "one-bad"
    shutil.copytree(served.folder / "one", bad)
    values = np.load(bad / "tasks" / "ranking" / "state" / "state_BD.npy")
    np.save(bad / "tasks" / "ranking" / "state" / "state_BD.npy", -values)
    storage = Storage(str(bad))
    manifest = storage.read_json(MANIFEST)
    manifest["files"] = [storage.entry(entry["name"]) for entry in manifest["files"]]
    storage.write_json(MANIFEST, manifest)
    before = served.ask("/one/v1/health")[1]["step"]
    done = served.command("upgrade", "one", str(bad))
    assert done.returncode == 1
    assert "rolled back to" in done.stderr.splitlines()[-1]
    assert "the example's answer differs" in done.stderr.splitlines()[-1]
    assert {served.ask("/one/v1/health")[1]["step"] for _ in range(10)} == {before}
    assert nothing_failed(load) > 100


def test_what_cannot_be_upgraded_is_told(served: Served) -> None:
    done = served.command("upgrade", "none", str(served.folder / "two"))
    assert done.stderr.splitlines()[-1] == "error: none: is not served; there are one, two"
    (served.folder / "broken").mkdir()
    done = served.command("upgrade", "one", str(served.folder / "broken"))
    assert "no artifact here" in done.stderr.splitlines()[-1]


def test_the_end_leaves_no_process_behind(served: Served) -> None:
    family = psutil.Process(served.process.pid).children(recursive=True)
    (path,) = Path(tempfile.gettempdir()).glob(f"{FOLDER}{served.process.pid}-serve-*/{STATE}")
    folder = json.loads(path.read_text())["proxies"]
    proxies = [p for p in psutil.process_iter(["cmdline"]) if f"{folder}/" in " ".join(p.info["cmdline"] or [])]
    assert proxies
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(30)
    deadline_s = time.monotonic() + 15
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in [*family, *proxies]):
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
