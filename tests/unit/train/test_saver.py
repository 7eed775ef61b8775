"""Saves that the storage refuses: tried again, passed over, or the end of the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rec.errors import TrainingError
from rec.storage import Storage
from rec.train import saver as module
from rec.train.checkpoint import CheckpointStore
from rec.train.ranks import OneRank
from rec.train.saver import Saver
from rec.train.shards import TensorPiece

Event = dict[str, Any]


class Full(Storage):
    """A disk that is full while it is told so."""

    full = True

    def _write_once(self, name: str, fill: Any) -> None:
        if self.full and "step-" in name:
            raise OSError(28, "No space left on device")
        super()._write_once(name, fill)


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Full, Saver, list[Event]]:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    monkeypatch.setattr(module, "TOLD_S", 0.05)
    storage = Full(str(tmp_path))
    return storage, Saver(CheckpointStore(storage), OneRank()), []


def save(saver: Saver, step: int, events: list[Event], *, best: bool = False) -> None:
    saver.save(step, [TensorPiece.whole("model.w", torch.full((4,), float(step)))], {}, best, events.append)


def until(happened: Callable[[], Any]) -> None:
    end_s = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_a_save_is_tried_until_the_disk_has_room(full: tuple[Full, Saver, list[Event]]) -> None:
    storage, saver, events = full
    save(saver, 1, events)
    until(lambda: (saver.poll(events.append), events)[1])
    assert events == [
        {
            "kind": "trouble",
            "rank": 0,
            "total_step": 1,
            "text": "the checkpoint of step 1 cannot be written yet: "
            f"{storage.root}/step-00000001/model-000-000.safetensors: cannot be written ([Errno 28] No space left on "
            "device); it is tried again",
        }
    ]
    saver.poll(events.append)
    assert len(events) == 1  # told once
    storage.full = False
    until(lambda: (saver.poll(events.append), len(events) > 1)[1])
    assert events[1] == {"kind": "saved", "rank": 0, "total_step": 1}
    assert saver.store.load(1).tensors["model.w"].tolist() == [1, 1, 1, 1]


def test_the_next_save_takes_the_place_of_one_that_is_refused(full: tuple[Full, Saver, list[Event]]) -> None:
    storage, saver, events = full
    save(saver, 1, events)
    until(lambda: saver.trouble)
    save(saver, 2, events)
    assert [event["text"] for event in events if event["kind"] == "note"] == [
        "the checkpoint of step 1 was not written; training goes on, and the next one is tried"
    ]
    storage.full = False
    saver.wait(events.append)
    assert saver.store.steps() == [2]
    assert saver.store.newest_valid() == (2, [])


def test_the_best_is_waited_for(full: tuple[Full, Saver, list[Event]]) -> None:
    storage, saver, events = full
    save(saver, 1, events, best=True)
    until(lambda: saver.trouble)
    threading.Timer(0.3, lambda: setattr(storage, "full", False)).start()
    save(saver, 2, events)
    saver.wait(events.append)
    assert (saver.store.steps(), saver.store.best_step()) == ([1, 2], 1)
    # Nobody takes the run for one that hangs.
    assert any(event["kind"] == "waiting for storage" for event in events)


def test_a_run_ends_when_its_last_save_is_refused_for_long(
    full: tuple[Full, Saver, list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, saver, events = full
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    save(saver, 7, events)
    with pytest.raises(TrainingError, match=r"^the checkpoint of step 7 could not be written: .*No space left"):
        saver.wait(events.append)
    assert saver.store.steps() == []


def test_a_run_ends_when_several_saves_in_a_row_are_refused(full: tuple[Full, Saver, list[Event]]) -> None:
    _, saver, events = full
    for step in range(1, 5):
        save(saver, step, events)
        until(lambda: saver.trouble)
    with pytest.raises(TrainingError, match=r"^the checkpoint of step 4 could not be written, nor the 3 before: "):
        save(saver, 5, events)
