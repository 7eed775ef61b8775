"""Checkpoints of ranks: who writes what, other sizes, processes that die while a thread writes, object stores."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import fs
from torch import nn

from rec.config import RunConfig, to_json
from rec.moe.experts import DrawnExperts, FeedForwardExperts
from rec.moe.layer import MixtureOfExperts
from rec.moe.routers import SoftmaxRouter
from rec.nn.making import made_empty, made_undrawn
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.job import claim, train_here
from rec.train.saver import Saver
from tests.distributed.runtime.test_phase_ranks import RISING, close, train_rank
from tests.support.states import state_of
from tests.support.toy_phases import toy_table

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytestmark = [pytest.mark.ray]
Make = Callable[..., RunConfig]
TRAIN = TrainConfig(learning_rate=0.01)
WIDTH, EXPERTS = 16, 4


def quiet(_: Any) -> None:
    """Say nothing."""


class Model(nn.Module):
    """A table that every rank holds, and experts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(8192, WIDTH))
        self.frozen = nn.Parameter(torch.randn(8192, WIDTH), requires_grad=False)
        experts = FeedForwardExperts(WIDTH, 64, EXPERTS, seed=4)
        self.soft = MixtureOfExperts(SoftmaxRouter(WIDTH, EXPERTS, 2), experts)
        self.register_buffer("count", torch.tensor(3))

    def forward(self, row_N: torch.Tensor) -> torch.Tensor:
        return self.soft(self.table[row_N]).y_ND


def engine_of(world: int, ep: int, stage: int, precision: str, make: Callable[..., Any] = made_undrawn) -> Any:
    from rec.runtime.deepspeed import DeepSpeedEngine

    keys: dict[str, Any] = {"workers": world, "expert_parallel": ep, "zero_stage": stage, "precision": precision}
    module = make(Model, DrawnExperts) if make is made_undrawn else make(Model)
    return DeepSpeedEngine(module, TRAIN, ParallelConfig(**keys))


def step(engine: Any) -> float:
    loss = engine(torch.arange(32) + 32 * engine.rank).float().square().mean()
    engine.backward(loss)
    engine.step(0.01)
    return float(loss.detach())


def saving(rank: int, world: int, ep: int, stage: int, precision: str, folder: str) -> Any:
    """Train a step, save, and return what this rank has written, and the state that all hold together."""
    from rec.runtime.ranks import TorchRanks

    engine = engine_of(world, ep, stage, precision)
    step(engine)
    saver = Saver(CheckpointStore(Storage(folder), shard_bytes=200_000), TorchRanks())
    pieces = engine.pieces()
    saver.save(1, pieces, {"total_step": 1}, True, quiet)
    saver.wait(quiet)
    return sum(piece.bytes for piece in pieces), state_of(engine)


def going_on(rank: int, world: int, ep: int, stage: int, precision: str, folder: str) -> Any:
    """Take up what was saved, into a model made without weights, and return what all ranks hold then."""
    from rec.runtime.ranks import TorchRanks

    engine = engine_of(world, ep, stage, precision, made_empty)
    engine.load_state(CheckpointStore(Storage(folder)).load(1, TorchRanks()).tensors)
    return state_of(engine), step(engine)


SIZES = [
    ((2, 2, 1, "bf16"), (4, 2, 2, "bf16")),
    ((4, 2, 2, "fp32"), (2, 1, 0, "fp32")),
    ((2, 1, 0, "bf16"), (1, 1, 1, "bf16")),
    ((2, 2, 0, "fp32"), (4, 4, 1, "fp32")),
]
"""(workers, expert-parallel, ZeRO stage, precision) that save, and that go on."""


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_ranks_write_their_share_and_others_take_it_up_to_the_bit(
    ranks: Any, tmp_path: Path, source: tuple[Any, ...], target: tuple[Any, ...]
) -> None:
    folder = str(tmp_path)
    found = ranks.run(source[0], saving, *source[1:], folder)
    shares, wanted = [share for share, _ in found], found[0][1]
    assert max(shares) <= 1.1 * sum(shares) / source[0]
    files = list(tmp_path.rglob("*.safetensors"))
    assert all(file.stat().st_size <= 200_000 + 8000 for file in files)
    assert {file.name.split("-")[1] for file in files} == {f"{rank:03d}" for rank in range(source[0])}
    assert sum(file.stat().st_size for file in files) == pytest.approx(sum(shares), rel=0.05)
    store = CheckpointStore(Storage(folder))
    saved = store.load(1).tensors
    assert saved.keys() == wanted.keys()
    assert all(torch.equal(saved[name], value) for name, value in wanted.items())
    for state, _ in ranks.run(target[0], going_on, *target[1:], folder):
        assert state.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(state[name].float(), value.float(), rtol=0, atol=0, msg=name)


def losses(rank: int, world: int, ep: int, stage: int, undrawn: bool) -> Any:
    engine = engine_of(world, ep, stage, "fp32", made_undrawn if undrawn else lambda make: make())
    held = sum(p.numel() for name, p in engine.module.named_parameters() if "experts" in name)
    return held, [step(engine) for _ in range(2)]


@pytest.mark.parametrize(("ep", "stage"), [(2, 1), (1, 1)])
def test_experts_drawn_by_their_rank_train_as_those_that_all_drew(ranks: Any, ep: int, stage: int) -> None:
    wanted, found = (ranks.run(2, losses, ep, stage, undrawn) for undrawn in (False, True))
    assert found == wanted
    assert found[0][0] == 2 * WIDTH * 64 * EXPERTS // ep


# Checksums, shared out.


def looking(rank: int, world: int, folder: str, most: int | None) -> Any:
    from rec.runtime.ranks import TorchRanks

    read: list[str] = []

    class Watched(Storage):
        def sha256(self, name: str) -> str:
            read.append(name)
            return super().sha256(name)

    found = CheckpointStore(Watched(folder)).newest_valid(TorchRanks(), most)
    return found, read


def test_each_file_is_read_by_one_rank_and_damage_is_known_to_all(ranks: Any, tmp_path: Path) -> None:
    folder = str(tmp_path)
    ranks.run(2, saving, 2, 1, "fp32", folder)
    answers = ranks.run(3, looking, folder, None)
    assert [found for found, _ in answers] == [(1, [])] * 3
    read = [name for _, names in answers for name in names]
    entries = json.loads((tmp_path / "step-00000001" / "manifest.json").read_text())["files"]
    assert sorted(read) == sorted(entry["name"] for entry in entries)
    assert all(names for _, names in answers)
    damaged = next(iter(sorted((tmp_path / "step-00000001").glob("optimizer-001-*"))))
    data = bytearray(damaged.read_bytes())
    data[-3] ^= 1
    damaged.write_bytes(data)
    for (step, faults), _ in ranks.run(3, looking, folder, None):
        assert step is None
        assert len(faults) == 1
        assert f"{damaged.name}: checksum differs" in faults[0]


# Death while a thread writes.


def dying(rank: int, world: int, text: str, victim: int, at: str) -> Any:
    """Train as one rank, of which one is killed in the thread that writes its second checkpoint."""
    saves: set[str] = set()
    write = Storage._write_once

    def writing(storage: Storage, name: str, fill: Any) -> None:
        if name.startswith("step-"):
            saves.add(name.partition("/")[0])
            if rank == victim and len(saves) == 2 and at in name:
                os.kill(os.getpid(), signal.SIGKILL)
        write(storage, name, fill)

    changed: Any = Storage
    changed._write_once = writing
    return train_rank(rank, world, text)


@pytest.fixture
def toy(run_config: Make) -> Make:
    return lambda **changes: run_config(**toy_table(**changes))


@pytest.mark.parametrize(("victim", "at"), [(0, "model-"), (1, "optimizer-"), (1, "part-"), (0, "manifest")])
def test_a_rank_that_is_killed_while_it_writes_costs_one_checkpoint(
    ranks: Any, toy: Make, tmp_path: Path, victim: int, at: str
) -> None:
    keys = {"train": {"phases": RISING, "checkpoint_steps": 4}}
    wanted = train_here(toy(out=str(tmp_path / "alone"), **keys), quiet, quiet)
    config = toy(out=str(tmp_path / "ranks"), parallel={"workers": 2, "expert_parallel": 2, "zero_stage": 1}, **keys)
    claim(config)
    with pytest.raises(RuntimeError, match=r"rank [01](:| died)"):
        ranks.run(2, dying, to_json(config), victim, at)
    store = CheckpointStore(Storage(config.out).below("checkpoints"))
    assert store.newest_valid() == (4, [])
    for found in ranks.run(2, train_rank, to_json(config)):
        close(found, wanted.history)


# Errors and slowness of storage.


def full(rank: int, world: int, folder: str) -> Any:
    """Save twice as one of two ranks, of which one has no room for the first checkpoint."""
    from rec.runtime.ranks import TorchRanks
    from rec.train import saver as module

    class Full(Storage):
        def _write_once(self, name: str, fill: Any) -> None:
            if rank == 1 and "00001/optimizer" in name:
                raise OSError(28, "No space left on device")
            super()._write_once(name, fill)

    module.TOLD_S = 0.1  # type: ignore[misc]
    engine = engine_of(world, 2, 1, "fp32")
    step(engine)
    saver, events = Saver(CheckpointStore(Full(folder)), TorchRanks()), []
    saver.save(1, engine.pieces(), {}, False, events.append)
    saver.save(2, engine.pieces(), {}, False, events.append)
    saver.wait(events.append)
    return [event.get("text", event["kind"]) for event in events]


def test_a_full_disk_of_one_rank_costs_that_checkpoint_and_no_rank_waits_for_ever(ranks: Any, tmp_path: Path) -> None:
    first, other = ranks.run(2, full, str(tmp_path))
    assert "the checkpoint of step 1 was not written; training goes on, and the next one is tried" in first
    assert any("the checkpoint of step 1 cannot be written yet" in text and "No space left" in text for text in other)
    assert first[-1] == "saved"
    assert CheckpointStore(Storage(str(tmp_path))).newest_valid() == (2, [])


def slow(rank: int, world: int, folder: str) -> Any:
    from rec.runtime.ranks import TorchRanks
    from rec.train import saver as module

    class Slow(Storage):
        def _write_once(self, name: str, fill: Any) -> None:
            time.sleep(0.4)
            super()._write_once(name, fill)

    module.TOLD_S = 0.1  # type: ignore[misc]
    engine = engine_of(world, 2, 1, "fp32")
    step(engine)
    saver, events = Saver(CheckpointStore(Slow(folder), 100_000), TorchRanks()), []
    saver.save(1, engine.pieces(), {}, True, events.append)
    saver.wait(events.append)
    return events


def test_who_waits_for_a_save_tells_that_bytes_are_written(ranks: Any, tmp_path: Path) -> None:
    for rank, events in enumerate(ranks.run(2, slow, str(tmp_path))):
        written = [event["bytes"] for event in events if event["kind"] == "writing"]
        assert len(written) > 3
        assert written == sorted(set(written))
        assert [event["kind"] for event in events].count("saved") == (rank == 0)


class ObjectStore(fs.FileSystemHandler):  # type: ignore[misc]
    """Files of a folder under the rules of an object store: none can be renamed."""

    def __init__(self, folder: str) -> None:
        self.inner = fs.SubTreeFileSystem(folder, fs.LocalFileSystem())
        self.moved: list[str] = []

    def get_type_name(self) -> str:
        return "s3-like"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def get_file_info(self, paths: Any) -> Any:
        return self.inner.get_file_info(paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        return self.inner.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self.inner.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self.inner.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self.inner.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError

    def delete_file(self, path: str) -> None:
        self.inner.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        self.moved.append(src)
        raise NotImplementedError("an object store has no rename")

    def copy_file(self, src: str, dest: str) -> None:
        raise NotImplementedError

    def open_input_stream(self, path: str) -> Any:
        return self.inner.open_input_stream(path)

    def open_input_file(self, path: str) -> Any:
        return self.inner.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        self.inner.create_dir(path.rpartition("/")[0], recursive=True)  # there are no folders, only names
        return self.inner.open_output_stream(path, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        raise NotImplementedError

    def normalize_path(self, path: str) -> str:
        return path


def through_an_object_store(rank: int, world: int, folder: str) -> Any:
    from rec.runtime.ranks import TorchRanks

    handler = ObjectStore(folder)
    store = CheckpointStore(Storage("checkpoints", fs.PyFileSystem(handler)))
    engine = engine_of(world, 2, 1, "fp32")
    saver = Saver(store, TorchRanks())
    for number in (1, 2, 3, 4):
        step(engine)
        saver.save(number, engine.pieces(), {"best_step": 1}, number == 1, quiet)
    saver.wait(quiet)
    torch.distributed.barrier()
    wanted = state_of(engine)
    found = store.load(4, TorchRanks()).tensors
    equal = all(torch.equal(found[name], value) for name, value in wanted.items())
    return equal, store.steps(), store.newest_valid(TorchRanks()), handler.moved


def test_object_stores_get_files_under_their_own_names(ranks: Any, tmp_path: Path) -> None:
    for found in ranks.run(2, through_an_object_store, str(tmp_path)):
        assert found == (True, [1, 3, 4], (4, []), [])
    names = {path.name for path in (tmp_path / "checkpoints" / "step-00000004").iterdir()}
    assert {"manifest.json", "state.json", "part-001.json", "model-001-000.safetensors"} <= names
    assert not any(name.endswith(".tmp") for name in names)
