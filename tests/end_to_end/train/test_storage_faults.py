"""Training whose storage fails, stalls, is gone or full: it goes on or ends with the cause; what was saved is whole."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rec import filesystems
from rec.config import RunConfig
from rec.errors import RecError, TrainingError
from rec.storage import Storage
from rec.train import saver
from rec.train.checkpoint import CheckpointStore
from rec.train.job import train_here
from tests.support.object_store import BUCKET, Proxy, options, reachable

pytestmark = pytest.mark.slow
Make = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    pytest.importorskip("moto", reason="needs the extra `dev`")
    with reachable() as port:
        yield port


@pytest.fixture
def proxy(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(filesystems, "ATTEMPTS", 2)
    monkeypatch.setattr(filesystems, "ANSWER_S", 1.0)
    proxy = Proxy(port)
    yield proxy
    proxy.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RETRY_S", 0.2), ("TOLD_S", 0.1), ("PATIENCE_S", 10.0)):
        monkeypatch.setattr(saver, name, value)


class Once:
    """Does something when so many steps are done, and notes what it is told."""

    def __init__(self, step: int, action: Callable[[], Any]) -> None:
        self.step, self.action, self.kinds, self.texts = step, action, [], []  # type: ignore[var-annotated]

    def __call__(self, event: dict[str, Any]) -> None:
        self.kinds.append(event["kind"])
        self.texts.append(event.get("text", ""))
        if event["kind"] == "saved" and event["total_step"] >= self.step:
            action, self.action = self.action, lambda: None
            action()


def config_of(run_config: Make, out: str) -> RunConfig:
    return run_config(out=out, train={"epochs": 2, "checkpoint_steps": 4})


def store_of(config: RunConfig) -> CheckpointStore:
    return CheckpointStore(Storage(config.out).below("checkpoints"))


@pytest.mark.parametrize("mode", ["fail", "stall"])
def test_training_goes_on_when_the_store_comes_back(run_config: Make, proxy: Proxy, mode: str) -> None:
    def break_it() -> None:
        proxy.mode = mode
        threading.Timer(8.0, setattr, (proxy, "mode", "pass")).start()

    config, heard = config_of(run_config, f"s3://{BUCKET}/{mode}{options(proxy.port)}"), Once(4, break_it)
    train_here(config, heard, lambda _: None)
    assert proxy.refused
    assert any("cannot be written yet" in text for text in heard.texts)
    store = store_of(config)
    assert store.newest_valid() == (store.steps()[-1], [])
    assert store.best_step() is not None


def test_a_store_that_is_gone_ends_the_run_with_the_cause(run_config: Make, proxy: Proxy) -> None:
    config = config_of(run_config, f"s3://{BUCKET}/gone{options(proxy.port)}")
    with pytest.raises(TrainingError, match=r"^the checkpoint of step \d+ could not be written.*NETWORK_CONNECTION"):
        train_here(config, Once(4, lambda: setattr(proxy, "mode", "gone")), lambda _: None)
    proxy.mode = "pass"
    assert store_of(config).newest_valid() == (4, [])


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=False).returncode:
        pytest.skip("needs root to mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("is_freed", [True, False])
def test_a_full_disk_is_waited_for_and_then_told(run_config: Make, small: Path, is_freed: bool) -> None:
    ballast = small / "ballast"

    def fill() -> None:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 12))
        if is_freed:
            threading.Timer(2.0, ballast.unlink).start()

    config, heard = config_of(run_config, str(small / "run")), Once(4, fill)
    if is_freed:
        train_here(config, heard, lambda _: None)
    else:
        with pytest.raises(RecError, match="No space left on device"):
            train_here(config, heard, lambda _: None)
        ballast.unlink()
    assert any("cannot be written yet" in text for text in heard.texts)
    step, faults = store_of(config).newest_valid()
    assert step is not None
    assert faults == []
    assert step > 4 or not is_freed
