"""Saving and going on: memory of a rank beside its share of the state, a step while a save is written, a large state.

The model is a stack of mixture layers whose experts are spread over ranks, in bfloat16 with float32 masters under
DeepSpeed. A state of P numbers is 12 P bytes on disk: masters and two moments of Adam.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from rec.benchmarks.memory import PeakMemory
from rec.benchmarks.ranks import as_rank
from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import Times, seconds
from rec.benchmarks.work import Say
from rec.json_text import json_text
from rec.moe.experts import DrawnExperts, FeedForwardExperts
from rec.moe.layer import MixtureOfExperts
from rec.moe.routers import SoftmaxRouter
from rec.nn.making import made_empty, made_undrawn
from rec.runtime.deepspeed import DeepSpeedEngine
from rec.runtime.ranks import TorchRanks
from rec.storage import Storage
from rec.train.checkpoint import CheckpointStore
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.engine import LocalEngine
from rec.train.memory import give_back, peaks, restart_peaks
from rec.train.ranks import OneRank
from rec.train.saver import Saver
from rec.train.shards import TensorPiece

MEMORY_GOAL, STEP_GOAL, COPY_GOAL, LARGE_GOAL_GIB = 1.3, 1.2, 1.5, 24.0
TRAIN = TrainConfig(learning_rate=1e-4)
EXPERTS, RESUMED = 8, (1, 2, 4)
GIB, MB = 1 << 30, 1e6
PRELOAD = ["torch._dynamo", "deepspeed", __name__]
"""What ranks find imported."""


@dataclass(frozen=True, slots=True)
class SavesSize:
    """How large the benchmark is."""

    layers: int
    width: int
    hidden: int
    rows: int
    rounds: int
    slow_mb_s: float
    """What the slowed storage takes."""

    @property
    def parameters(self) -> int:
        """Return the numbers of all experts."""
        return self.layers * EXPERTS * 3 * self.width * self.hidden


MIDDLE = SavesSize(layers=2, width=256, hidden=1024, rows=256, rounds=15, slow_mb_s=40)
LARGE = SavesSize(layers=5, width=1024, hidden=4096, rows=64, rounds=1, slow_mb_s=0)
SMALL = SavesSize(layers=1, width=64, hidden=1024, rows=16, rounds=3, slow_mb_s=10)


class Mixtures(nn.Module):
    """Layers of mixtures, each added to what it is given."""

    def __init__(self, size: SavesSize) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            MixtureOfExperts(
                SoftmaxRouter(size.width, EXPERTS, 2),
                FeedForwardExperts(size.width, size.hidden, EXPERTS, activation="swiglu", seed=layer),
            )
            for layer in range(size.layers)
        )

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return (N, D)."""
        for layer in self.layers:
            x_ND = x_ND + layer(x_ND).y_ND
        return x_ND


def measure(folder: str, say: Say, middle: SavesSize = MIDDLE, large: SavesSize = LARGE) -> list[Row]:
    """Return the rows of saving at a middle size, and of a large state that is saved and taken up again."""
    get_context("forkserver").set_forkserver_preload(PRELOAD)
    rows = _memory(folder, middle)
    say(f"saves: steps while {12 * middle.parameters / MB:.0f} MB are written at {middle.slow_mb_s:g} MB/s")
    rows += _steps(folder, middle)
    return rows + _large(folder, large, say)


# What a save takes of a rank's memory.


def _memory(folder: str, size: SavesSize) -> list[Row]:
    """Return by how much a save raises the memory of each of two ranks, beside what the rank owns of the state."""
    start_processes(_saving_rank, (f"{folder}/memory", size), nprocs=2, start_method="forkserver")
    found = [json.loads(Path(f"{folder}/memory", f"{rank}.json").read_text()) for rank in range(2)]
    worst = max(found, key=lambda one: float(one["raised"]) / one["share"])
    name = f"memory of a save per rank, 2 ranks, {size.parameters / 1e6:.0f} M numbers, limit: the rank's share"
    return [Row(name, worst["raised"] / MB, "MB", worst["share"] / MB, MEMORY_GOAL)]


def _saving_rank(rank: int, folder: str, size: SavesSize) -> None:
    Path(folder).mkdir(exist_ok=True)
    with as_rank(rank, 2, f"{folder}/meeting"):
        engine = _engine(size, 2)
        _step(engine, size)
        saver = Saver(CheckpointStore(Storage(f"{folder}/checkpoints")), TorchRanks())
        share = sum(piece.bytes for piece in engine.pieces())
        give_back()
        restart_peaks()
        before = peaks()["peak_memory_bytes"]
        saver.save(1, engine.pieces(), {}, True, _quiet)
        saver.wait(_quiet)
        raised = peaks()["peak_memory_bytes"] - before
        Path(folder, f"{rank}.json").write_text(json_text({"raised": raised, "share": share}))


# What a save takes of a step's time.


class SlowStorage(Storage):
    """Takes so many megabytes a second and no more, as one across a network."""

    def __init__(self, root: str, mb_s: float) -> None:
        super().__init__(root)
        self.mb_s = mb_s

    def _write_once(self, name: str, fill: Callable[[IO[bytes]], Any]) -> None:
        super()._write_once(name, lambda stream: fill(_Slowed(stream, self.mb_s)))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class _Slowed:
    stream: IO[bytes]
    mb_s: float

    def write(self, data: Any) -> None:
        time.sleep(len(data) / (self.mb_s * MB))
        self.stream.write(data)


def _steps(folder: str, size: SavesSize) -> list[Row]:
    """Return a step while a save is written beside one without, and the wait of a save beside a bare copy."""
    torch.manual_seed(0)
    engine = LocalEngine(Mixtures(size), TRAIN)
    saver = Saver(CheckpointStore(SlowStorage(f"{folder}/slow", size.slow_mb_s)), OneRank())
    copies: list[Tensor] = []
    rounds: dict[str, list[float]] = {"alone": [], "saving": [], "wait": [], "copy": []}
    for number in range(size.rounds + 1):
        saver.wait(_quiet)
        one = {"alone": seconds(partial(_step, engine, size))}
        pieces = engine.pieces()
        copies = copies or [torch.zeros_like(piece.values) for piece in pieces]
        one["copy"] = seconds(partial(_copy, pieces, copies))
        one["wait"] = seconds(partial(saver.save, number + 1, pieces, {}, False, _quiet))
        one["saving"] = seconds(partial(_step, engine, size))
        assert saver.thread is not None
        assert saver.thread.is_alive(), "the save was over before the step was"
        if number:  # the first round warms up
            for name, value in one.items():
                rounds[name].append(value)
    saver.wait(_quiet)
    times = {name: Times(rounds=tuple(values)) for name, values in rounds.items()}
    return [
        timed("a step while a save is written, limit: a step alone", times["saving"], times["alone"], STEP_GOAL),
        timed("what a step waits for a save, limit: a bare copy", times["wait"], times["copy"], COPY_GOAL),
    ]


def _copy(pieces: Sequence[TensorPiece], targets: Sequence[Tensor]) -> None:
    for piece, target in zip(pieces, targets, strict=True):
        target.copy_(piece.values)


# A large state.


def _large(folder: str, size: SavesSize, say: Say) -> list[Row]:
    """Return the most memory of all processes together while 2 ranks save a large state and others take it up."""
    rows = []
    for world in (0, *RESUMED):
        what = f"resumed on {world}" if world else "saved by 2"
        say(f"saves: {size.parameters / 1e6:.0f} M numbers {what}")
        start = time.perf_counter()
        with PeakMemory() as memory:
            start_processes(_large_rank, (world, f"{folder}/large", size), nprocs=world or 2, start_method="forkserver")
        name = f"memory of all processes, {size.parameters / 1e6:.0f} M numbers {what}"
        rows.append(Row(name, memory.peak_bytes / GIB, "GiB", goal=LARGE_GOAL_GIB))
        rows.append(Row(f"{what}, start to end", time.perf_counter() - start, "s"))
    return rows


def _large_rank(rank: int, world: int, folder: str, size: SavesSize) -> None:
    """Save a state as one of two ranks (world 0), or go on from it as one of `world` and compare every number."""
    Path(folder).mkdir(exist_ok=True)
    with as_rank(rank, world or 2, f"{folder}/meeting-{world}"):
        store, ranks = CheckpointStore(Storage(f"{folder}/checkpoints")), TorchRanks()
        engine = _engine(size, world or 2, empty=world > 0)
        if not world:
            _step(engine, size)
            saver = Saver(store, ranks)
            saver.save(1, engine.pieces(), {}, True, _quiet)
            saver.wait(_quiet)
            return
        state = store.load(1, ranks).tensors
        engine.load_state(state)
        for piece in engine.pieces():
            if not torch.equal(state.part(piece.name, piece.at, piece.values.numel()), piece.values):
                raise AssertionError(f"{piece.name} was not taken up as it was saved")
        _step(engine, size)


def _engine(size: SavesSize, world: int, *, empty: bool = False) -> DeepSpeedEngine:
    """Return an engine whose experts are spread over all ranks; without weights where a state follows."""
    parallel = ParallelConfig(workers=world, expert_parallel=world, zero_stage=2, precision="bf16")
    torch.manual_seed(0)
    make = partial(Mixtures, size)
    module = made_empty(make) if empty else made_undrawn(make, DrawnExperts)
    return DeepSpeedEngine(module, TRAIN, parallel)


def _step(engine: Any, size: SavesSize) -> None:
    """Train one step on rows made from the rank."""
    dtype = next(engine.module.parameters()).dtype
    x_ND = torch.randn(size.rows, size.width, generator=torch.Generator().manual_seed(engine.rank)).to(dtype)
    engine.backward(engine(x_ND).float().square().mean())
    engine.step(1e-4)


def _quiet(_: Any) -> None:
    """Say nothing."""
