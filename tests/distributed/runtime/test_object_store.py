"""Whole runs on two real nodes whose data, checkpoints and results lie in a real object store, also a failing one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")
pytest.importorskip("moto", reason="needs the extra `dev`")

from rec.runtime.local_cluster import LocalCluster
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from rec.train.training_record import read_training
from tests.support.object_store import BUCKET, Proxy, options, reachable

pytestmark = [pytest.mark.ray, pytest.mark.nodes, pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[3]
WORDS = [
    *("data.read.interactions=5000", "model.blocks=1", "model.dropout=0.0", "train.batch_size=24"),
    *("train.patience=1000", "train.checkpoint_steps=4", "evaluate.bootstrap=100", "parallel.workers=2"),
]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of the server, and its keys in the environment from which nodes start."""
    with reachable() as port:
        yield port


@dataclass(frozen=True)
class Site:
    """The nodes, and the store as they reach it: through a proxy."""

    nodes: LocalCluster
    proxy: Proxy
    root: str
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def options(self) -> str:
        return options(self.proxy.port, f"{self.nodes.subnet}.1")

    def uri(self, name: str) -> str:
        return f"s3://{BUCKET}/{name}{self.options}"

    def start(self, log: Path, command: str, *words: str) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "rec.cli", command, *words]
        with log.open("wb") as file:
            self.started.append(self.nodes.popen(0, line, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT))
        return self.started[-1]

    def run(self, log: Path, command: str, *words: str) -> str:
        """Return what a command says that ends well."""
        assert self.start(log, command, *words).wait(300) == 0, log.read_text()
        return log.read_text()

    def train(self, log: Path, name: str, *words: str) -> subprocess.Popen[bytes]:
        places = [f"data.root={self.root}", f"out={self.uri(name)}"]
        return self.start(log, "train", "rec/configs/demo.toml", *WORDS, *places, *words)


@pytest.fixture(scope="module")
def site(port: int, local_nodes: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    proxy = Proxy(port)
    there = Site(local_nodes, proxy, f"s3://{BUCKET}/data{options(proxy.port, f'{local_nodes.subnet}.1')}")
    log = tmp_path_factory.mktemp("site") / "log"
    there.run(log, "prepare", "rec/configs/demo.toml", *WORDS, f"data.root={there.root}")
    yield there
    proxy.close()


@pytest.fixture(autouse=True)
def ended(site: Site) -> Iterator[None]:
    """End what a test that failed has left: it would hold the CPUs of the nodes."""
    yield
    site.proxy.mode = "pass"
    for process in site.started:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def stores(site: Site, name: str) -> CheckpointStore:
    return CheckpointStore(Storage(site.uri(name)).below("checkpoints"))


def until(process: subprocess.Popen[bytes], log: Path, happened: Any, limit_s: float = 240.0) -> None:
    end_s = time.monotonic() + limit_s
    while not happened():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(0.2)


def test_a_run_lives_in_an_object_store_from_its_data_to_its_predictions(site: Site, tmp_path: Path) -> None:
    log, out = tmp_path / "log", site.uri("run")
    killed = site.train(log, "run", "train.epochs=4")
    until(killed, log, lambda: stores(site, "run").steps()[-1:] >= [8])
    killed.kill()
    killed.wait()
    stood = stores(site, "run").newest_valid()
    assert stood[0] is not None
    assert stood[1] == []
    assert site.train(log, "run", "train.epochs=4").wait(300) == 0, log.read_text()
    assert "going on from step" in log.read_text()
    assert read_training(Storage(out))["end"]["over"]  # type: ignore[index]
    site.run(log, "evaluate", out)
    assert site.run(log, "report", out).splitlines()[-1] == site.uri("run/report.html")
    site.run(log, "predict", out)
    site.run(log, "export", out, "--to", site.uri("artifact"))
    storage = Storage(out)
    assert {"config.json", "evaluation", "history.json", "predictions", "report.html"} <= set(storage.list())
    assert storage.read_json("predictions/test/manifest.json")["errors"] == 0
    names = Storage(site.uri("artifact")).list()
    assert {"artifact.json", "serve.yaml"} <= set(names)
    (folder,) = (name for name in names if "." not in name)
    assert "model.safetensors" in Storage(site.uri(f"artifact/{folder}")).list()
    code = "import sys; from rec.serving.artifact import Artifact; print(Artifact.open(sys.argv[1]).example()['path'])"
    fetched = subprocess.run(
        [sys.executable, "-c", code, site.uri("artifact")],
        capture_output=True, text=True, check=True, env={**os.environ, "TMPDIR": str(tmp_path)}, cwd=ROOT,
    )  # fmt: skip
    assert fetched.stdout.startswith("/")
    assert len(list(tmp_path.rglob("model.safetensors"))) == 1


def test_training_goes_on_while_the_store_fails(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = site.train(log, "fail", "train.epochs=30", "train.evaluate_every=30")
    until(process, log, lambda: stores(site, "fail").steps()[-1:] >= [4])
    site.proxy.mode = "fail"
    time.sleep(10)
    assert process.poll() is None, log.read_text()
    assert site.proxy.refused
    site.proxy.mode = "pass"
    assert process.wait(300) == 0, log.read_text()
    assert "starting again" not in log.read_text()
    store = stores(site, "fail")
    assert store.newest_valid() == (store.steps()[-1], [])
