"""Checkpoints: complete or absent, in shards, damage found before anything is loaded."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from rec.errors import CheckpointError, DataError
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from rec.train.job import newest
from rec.train.ranks import OneRank
from rec.train.saver import Saver
from rec.train.shards import TensorPiece, merged, shared_out

FILES = ("model-000-000.safetensors", "optimizer-000-000.safetensors", "state.json", "manifest.json")


def tensors(step: int) -> dict[str, Tensor]:
    return {"model.w": torch.full((3, 2), float(step)), "optimizer.w.exp_avg": torch.ones(3, 2)}


def save_at(store: CheckpointStore, step: int, *, best: bool, state: dict[str, Any] | None = None) -> None:
    """Save a checkpoint of one rank."""
    pieces = [TensorPiece.whole(name, value) for name, value in tensors(step).items()]
    store.begin(step)
    store.finish(step, [store.write(step, 0, pieces)], state or {"total_step": step}, best)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(Storage(str(tmp_path)))


def test_what_is_saved_is_loaded(store: CheckpointStore) -> None:
    save_at(store, 3, best=True)
    found = store.load(3)
    assert found.state == {"total_step": 3}
    assert found.tensors.keys() == tensors(3).keys()
    assert all(torch.equal(found.tensors[k], v) for k, v in tensors(3).items())


def test_the_best_is_loaded_without_its_optimiser(store: CheckpointStore, tmp_path: Path) -> None:
    save_at(store, 3, best=True)
    (tmp_path / "step-00000003" / FILES[1]).unlink()
    assert list(store.load_best().tensors) == ["model.w"]
    with pytest.raises(CheckpointError, match=r"optimizer-000-000.safetensors: missing"):
        store.load(3)


def test_a_damaged_best_is_named_with_what_is_whole(store: CheckpointStore, tmp_path: Path) -> None:
    save_at(store, 1, best=True)
    for step in (2, 3):
        save_at(store, step, best=False, state={"total_step": step, "best_step": 1})
    (tmp_path / "step-00000001" / FILES[0]).unlink()
    with pytest.raises(CheckpointError, match=r"missing: the checkpoint that validation chose, step 1, .* are 2, 3;"):
        store.load_best()


def test_what_is_left_of_a_damaged_run_is_told(tmp_path: Path) -> None:
    store, said = CheckpointStore(Storage(str(tmp_path / "checkpoints"))), []
    for step in (1, 2, 3):
        save_at(store, step, best=step == 1, state={"total_step": step, "best_step": 1, "history": []})
    (tmp_path / "checkpoints" / "step-00000001" / FILES[0]).unlink()
    assert newest(Storage(str(tmp_path)), said.append) == 3
    assert len(said) == 1
    assert said[0].startswith("the checkpoint that validation chose is damaged: ")
    assert f"step-00000001/{FILES[0]}: missing" in said[0]
    for step in (2, 3):
        (tmp_path / "checkpoints" / f"step-{step:08d}" / FILES[1]).unlink()
    said.clear()
    assert newest(Storage(str(tmp_path)), said.append) is None
    assert said[-1] == "no whole checkpoint is left: starting from the beginning"
    assert len(said) == 4


def test_best_and_the_last_two_are_kept(store: CheckpointStore) -> None:
    for step in range(1, 7):
        save_at(store, step, best=step == 2)
    assert store.steps() == [2, 5, 6]
    assert store.best_step() == 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "flip"])
def test_damage_is_found_and_the_one_before_is_used(
    store: CheckpointStore, tmp_path: Path, name: str, damage: str
) -> None:
    save_at(store, 1, best=True)
    save_at(store, 2, best=False)
    path = tmp_path / "step-00000002" / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 4
        path.write_bytes({"empty": b"", "half": data[: len(data) // 2], "flip": bytes(flipped)}[damage])
    step, faults = store.newest_valid()
    assert step == 1
    # Without a manifest a folder is no checkpoint at all; everything else is said.
    assert (faults == []) == (name == "manifest.json" and damage == "missing")
    with pytest.raises((CheckpointError, DataError)):
        store.load(2)


def test_every_bit_of_a_manifest_counts(store: CheckpointStore, tmp_path: Path) -> None:
    save_at(store, 1, best=True)
    path = tmp_path / "step-00000001" / "manifest.json"
    data = path.read_bytes()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1
        path.write_bytes(bytes(flipped))
        try:
            faults = store.faults(1)
        except CheckpointError as error:  # the bit made it a manifest of another version
            faults = [str(error)]
        same = json.loads(flipped) == json.loads(data) if not faults else False
        assert faults or same, place


def test_sizes_alone_can_be_looked_at_and_the_state_is_whole_then_too(store: CheckpointStore, tmp_path: Path) -> None:
    save_at(store, 1, best=True)
    for name, deep, shallow in ((FILES[0], True, False), (FILES[2], True, True)):
        path = tmp_path / "step-00000001" / name
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert (bool(store.faults(1)), bool(store.faults(1, deep=False))) == (deep, shallow)
        path.write_bytes(data)


def test_a_crash_while_saving_leaves_the_one_before(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    save_at(store, 1, best=True)
    written = store.storage.write_with

    def crash(name: str, fill: Any) -> None:
        if "optimizer" in name:
            raise KeyboardInterrupt
        written(name, fill)

    monkeypatch.setattr(store.storage, "write_with", crash)
    with pytest.raises(KeyboardInterrupt):
        save_at(store, 2, best=True)
    assert store.newest_valid() == (1, [])
    assert store.load_best().step == 1


@pytest.mark.parametrize(("best", "chosen"), [(2, 2), (1, 1), (None, 1), (7, 1)])
def test_the_best_is_the_one_that_the_newest_state_names(store: CheckpointStore, best: int | None, chosen: int) -> None:
    save_at(store, 1, best=True, state={"total_step": 1, "best_step": 1})
    save_at(
        store, 2, best=False, state={"total_step": 2, "best_step": best}
    )  # as one stopped before it marked the best
    store.settle(2)
    assert store.best_step() == chosen
    assert store.steps() == [1, 2]


def test_checkpoints_that_were_never_whole_go(store: CheckpointStore) -> None:
    for step in (1, 2, 3):
        save_at(store, step, best=True, state={"total_step": step, "best_step": 3})
    for step in (1, 5):
        store.storage.write(f"step-{step:08d}/{FILES[0]}", b"half")
    store.settle(3)
    assert store.storage.list() == ["best.json", "step-00000002", "step-00000003"]


def test_a_run_without_checkpoints_says_so(store: CheckpointStore) -> None:
    assert store.newest_valid() == (None, [])
    with pytest.raises(CheckpointError, match="run `rec train CONFIG` first"):
        store.load_best()


def test_a_copy_is_the_same_and_counts_as_the_best(store: CheckpointStore, tmp_path: Path) -> None:
    save_at(store, 4, best=False)
    other = CheckpointStore(Storage(str(tmp_path / "other")))
    store.copy(4, other)
    assert (other.newest_valid(), other.best_step()) == ((4, []), 4)
    assert other.identity(4) == store.identity(4)


# Shards.


@pytest.mark.parametrize("limit", [1, 8, 100, 1 << 20])
def test_shards_hold_every_number_within_their_limit(tmp_path: Path, limit: int) -> None:
    """Two ranks own parts of one tensor; files are ones that safetensors itself reads."""
    store = CheckpointStore(Storage(str(tmp_path)), limit)
    flat = torch.randn(24)
    wholes = {
        "model.w": flat.view(4, 6), "model.flag": torch.tensor([True, False]), "model.count": torch.tensor(7),
        "model.half": torch.randn(5).bfloat16(), "model.none": torch.zeros(0, 3), "optimizer.w.step": torch.tensor(2.0),
    }  # fmt: skip
    one = [TensorPiece.whole(name, value) for name, value in wholes.items() if name != "model.w"]
    parts = [[*one, TensorPiece("model.w", (4, 6), 0, flat[:13])], [TensorPiece("model.w", (4, 6), 13, flat[13:])]]
    store.finish(1, [store.write(1, rank, pieces) for rank, pieces in enumerate(parts)], {}, best=True)
    found = store.load(1).tensors
    assert found.keys() == wholes.keys()
    for name, value in wholes.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name
    for at in range(24):
        for size in (0, 1, 5, 24 - at):
            if at + size <= 24:
                assert torch.equal(found.part("model.w", at, size), flat[at : at + size])
    files = list((tmp_path / "step-00000001").glob("*.safetensors"))
    assert {file.name.partition("-")[0] for file in files} == {"model", "optimizer"}
    for file in files:
        read = load_file(file)
        assert sum(value.nbytes for value in read.values()) <= max(limit, 8)


def test_only_the_bytes_that_are_asked_for_are_read(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watched(Storage):
        def open(self, name: str) -> Any:
            file = super().open(name)

            class Counted:
                seek = staticmethod(file.seek)

                @staticmethod
                def readinto(view: Any) -> int:
                    seen.append(len(view))
                    return int(file.readinto(view))

            return Counted()

    store = CheckpointStore(Watched(str(tmp_path)))
    pieces = [TensorPiece.whole("model.w", torch.arange(10_000.0)), TensorPiece.whole("model.b", torch.zeros(50))]
    store.finish(1, [store.write(1, 0, pieces)], {}, best=True)
    found = store.load(1, checked=True).tensors.part("model.w", 4000, 7)
    assert found.tolist() == list(range(4000, 4007))
    assert sum(seen) == 28


@pytest.mark.parametrize("second", [(3, 9), (1, 9), (3, 8), None])
def test_ranks_that_lose_or_repeat_numbers_are_found_out(
    store: CheckpointStore, second: tuple[int, int] | None
) -> None:
    flat = torch.arange(9.0)
    pieces = [[TensorPiece("model.w", (3, 3), 0, flat[:3])]]
    pieces += [[TensorPiece("model.w", (3, 3), second[0], flat[slice(*second)])]] if second else []
    parts = [store.write(1, rank, own) for rank, own in enumerate(pieces)]
    if second == (3, 9):
        assert merged(part.tensors for part in parts)["model.w"].is_whole
        return
    with pytest.raises(CheckpointError, match=r"model\.w: ranks wrote runs"):
        store.finish(1, parts, {}, best=True)
    assert store.steps() == []


def test_a_group_of_pieces_is_never_above_the_limit() -> None:
    pieces = [TensorPiece.whole(f"model.{n}", torch.zeros(n)) for n in (3, 1000, 5, 20)]
    for limit in (4, 40, 400, 4000, 40_000):
        groups = shared_out(pieces, limit)
        assert all(sum(piece.bytes for piece in group) <= limit for group in groups)
        assert sum(piece.values.numel() for group in groups for piece in group) == 1028


def test_checkpoints_of_the_format_before_are_read(store: CheckpointStore) -> None:
    files = {}
    for kind in ("model", "optimizer"):
        name = f"step-00000005/{kind}.safetensors"
        files[name] = save({n: v for n, v in tensors(5).items() if n.startswith(kind)})
    files["step-00000005/state.json"] = b'{"total_step": 5}'
    for name, data in files.items():
        store.storage.write(name, data)
    entries = [store.storage.entry(name) for name in files]
    store.storage.write_json("step-00000005/manifest.json", {"format": 2, "step": 5, "files": entries})
    found = store.load(5)
    assert found.state == {"total_step": 5}
    assert all(torch.equal(found.tensors[name], value) for name, value in tensors(5).items())
    assert store.newest_valid() == (5, [])
    store.storage.write_json("step-00000005/manifest.json", {"format": 1, "step": 5, "files": entries})
    with pytest.raises(CheckpointError, match="format 1, expected 3: another version wrote it"):
        store.load(5)


# In the background.


class Slow(Storage):
    """Writes nothing before it may."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.may = threading.Event()

    def _write_once(self, name: str, fill: Any) -> None:
        self.may.wait(30)
        self.broken(name)
        super()._write_once(name, fill)

    def broken(self, name: str) -> None:
        """Raise, where the test wants it."""


def saver_of(tmp_path: Path, kind: type[Slow] = Slow) -> tuple[Slow, Saver, list[dict[str, Any]]]:
    storage, events = kind(str(tmp_path)), []
    return storage, Saver(CheckpointStore(storage), OneRank()), events


def test_training_goes_on_while_a_thread_writes_what_was_copied(tmp_path: Path) -> None:
    storage, saver, events = saver_of(tmp_path)
    weight = torch.zeros(4)
    saver.save(1, [TensorPiece.whole("model.w", weight)], {"total_step": 1}, True, events.append)
    weight += 1  # the next step
    saver.poll(events.append)
    assert (events, saver.store.steps()) == ([], [])
    storage.may.set()
    saver.wait(events.append)
    assert events[-1] == {"kind": "saved", "rank": 0, "total_step": 1}
    assert saver.restore(1).tensors["model.w"].tolist() == [0, 0, 0, 0]


def test_the_next_save_waits_for_the_one_before_and_uses_its_memory(tmp_path: Path) -> None:
    storage, saver, events = saver_of(tmp_path)
    weight = torch.zeros(4)
    saver.save(1, [TensorPiece.whole("model.w", weight)], {}, False, events.append)
    memory = saver.buffers["model.w", 0].data_ptr()
    threading.Timer(0.2, storage.may.set).start()
    saver.save(2, [TensorPiece.whole("model.w", weight + 2)], {}, False, events.append)
    assert saver.store.load(1).tensors["model.w"].tolist() == [0, 0, 0, 0]
    assert saver.buffers["model.w", 0].data_ptr() == memory
    saver.wait(events.append)
    assert saver.store.load(2).tensors["model.w"].tolist() == [2, 2, 2, 2]
    assert [event["total_step"] for event in events if event["kind"] == "saved"] == [1, 2]


def test_what_goes_wrong_in_the_background_is_raised_at_the_next_step(tmp_path: Path) -> None:
    class Broken(Slow):
        def broken(self, name: str) -> None:
            if "optimizer" in name:
                raise ZeroDivisionError

    storage, saver, events = saver_of(tmp_path, Broken)
    storage.may.set()
    saver.save(1, [TensorPiece.whole(n, v) for n, v in tensors(1).items()], {}, True, events.append)
    assert saver.thread is not None
    saver.thread.join()
    with pytest.raises(ZeroDivisionError):
        saver.poll(events.append)
    assert saver.store.steps() == []
    saver.poll(events.append)  # told once


def test_a_run_that_fails_keeps_what_is_being_saved(tmp_path: Path) -> None:
    storage, saver, events = saver_of(tmp_path)
    saver.save(1, [TensorPiece.whole("model.w", torch.zeros(4))], {}, True, events.append)
    threading.Timer(0.2, storage.may.set).start()
    saver.abandon()
    assert (saver.store.steps(), events) == ([1], [])


def test_a_run_that_ends_just_before_a_save_starts_ends_as_it_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, saver, events = saver_of(tmp_path)

    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        saver.save(1, [TensorPiece.whole("model.weight", torch.zeros(2))], {}, False, events.append)
    saver.abandon()
    assert saver.thread is None
