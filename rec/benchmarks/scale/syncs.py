"""Waits of the host, collectives and operations of a training step, counted beside the most that they may be.

A difference between two and three mixture layers is what a layer costs; what is left over is paid once per step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch.multiprocessing.spawn import start_processes

from rec.benchmarks.counting import Counts, counting
from rec.benchmarks.ranks import as_rank
from rec.benchmarks.row import Row
from rec.benchmarks.work import Say
from rec.json_text import json_text
from rec.seeds import derive
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.config import MSMRecConfig
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.engine import Engine, LocalEngine
from rec.train.phases import stretches
from rec.train.progress import TrainingProgress
from rec.train.update import Update

LAYERS, USERS, STEPS = (2, 3), 24, 4
LAYER_SYNCS, LAYER_COLLECTIVES = 1, 4
"""The most of a mixture layer and step, whatever the ranks."""
STEP_SYNCS = {"1 process": 2, "2 processes, expert-parallel 1": 5, "2 processes, expert-parallel 2": 7}
STEP_COLLECTIVES = {"1 process": 0, "2 processes, expert-parallel 1": 6, "2 processes, expert-parallel 2": 8}
"""The most of the rest of a step, with DeepSpeed's own; a sum for owners is sent and received."""
WAYS = {"2 processes, expert-parallel 1": 1, "2 processes, expert-parallel 2": 2}


def measure(folder: str, say: Say) -> list[Row]:
    """Return the counts of MSMRec's step in one process and in two, with goals."""
    found = {"1 process": {str(layers): counts_of(layers, None, 0) for layers in LAYERS}}
    for name, size in WAYS.items():
        say(f"scale: syncs: {name}")
        own = Path(folder, str(size))
        own.mkdir()
        start_processes(_rank, (str(own), size), nprocs=2, start_method="spawn")
        found[name] = json.loads(Path(own, "found.json").read_text())
    return [row for name, counts in found.items() for row in rows_of(name, counts)]


def rows_of(name: str, counts: dict[str, dict[str, int]]) -> list[Row]:
    """Return the rows of one way to train, from the counts of both numbers of layers."""
    few, more = (counts[str(layers)] for layers in LAYERS)
    of_layer = {kind: (more[kind] - few[kind]) / (LAYERS[1] - LAYERS[0]) for kind in few}
    rest = {kind: few[kind] - LAYERS[0] * of_layer[kind] for kind in few}
    name = f"step of MSMRec, {name}"
    way = name.removeprefix("step of MSMRec, ")
    return [
        Row(f"{name}: waits of the host, {LAYERS[0]} mixture layers", few["syncs"], ""),
        Row(f"{name}: waits of a mixture layer", of_layer["syncs"], "", goal=LAYER_SYNCS),
        Row(f"{name}: waits of the rest", rest["syncs"], "", goal=STEP_SYNCS[way]),
        Row(f"{name}: collectives, {LAYERS[0]} mixture layers", few["collectives"], ""),
        Row(f"{name}: collectives of a mixture layer", of_layer["collectives"], "", goal=LAYER_COLLECTIVES),
        Row(f"{name}: collectives of the rest", rest["collectives"], "", goal=STEP_COLLECTIVES[way]),
        Row(f"{name}: operations, {LAYERS[0]} mixture layers", few["operations"], ""),
    ]


def step_counts(layers: int, size: int | None, rank: int, where: bool = False, **model: Any) -> Counts:
    """Return what a step of MSMRec with so many mixture layers asks for, once the first steps are made.

    `size` is the ranks that share the experts, None without DeepSpeed.
    """
    mixture = {"experts": 4, "per_row": 2}
    config = MSMRecConfig.model_validate(
        {"gate": "none", "loss": "gbce", "blocks": layers, "width": 16, "feedforward_mixture": mixture, **model}
    )
    rows, tables = MSMRec.sample(USERS, np.random.default_rng(rank))
    system, keys = MSMRec(config, tables), TrainConfig(clip_norm=1.0)
    torch.manual_seed(0)
    engine = _engine(system.model(), keys, size)
    stretch = stretches(system, keys)[0]
    engine.module.train()

    def seed(place: int) -> None:
        torch.manual_seed(derive(place, rank))

    update = Update(system, stretch, engine, TrainingProgress(), seed)
    batch = system.collate(rows)
    for _ in range(STEPS):
        update([(batch, True)], 1e-3, False)
    with counting(where) as found:
        update([(batch, True)], 1e-3, False)
    engine.close()
    return found


def _engine(module: torch.nn.Module, keys: TrainConfig, size: int | None) -> Engine:
    if size is None:
        return LocalEngine(module, keys)
    from rec.runtime.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(module, keys, ParallelConfig(workers=2, expert_parallel=size))


def counts_of(layers: int, size: int | None, rank: int) -> dict[str, int]:
    """Return the sums of `step_counts`."""
    found = step_counts(layers, size, rank)
    return {name: getattr(found, name).total() for name in ("syncs", "collectives", "operations")}


def _rank(rank: int, folder: str, size: int) -> None:
    with as_rank(rank, 2, f"{folder}/meeting"):
        found = {str(layers): counts_of(layers, size, rank) for layers in LAYERS}
        if rank == 0:
            Path(folder, "found.json").write_text(json_text(found))
