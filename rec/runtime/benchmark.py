"""`rec benchmark`: what is measured on Ray beside what needs none."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rec.benchmarks import evaluate as evaluate_benchmark
from rec.benchmarks import graph as graph_benchmark
from rec.benchmarks import train as train_benchmark
from rec.benchmarks.graph_costs import costs
from rec.benchmarks.row import Row, show
from rec.config import RunConfig, to_json
from rec.data.prepare import prepare as prepare_data
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.errors import TrainingError
from rec.keys import DataConfig, ParallelConfig, PlantedConfig, SourceConfig, TrainConfig
from rec.runtime.memory import PeakMemory
from rec.runtime.prepare import prepare as prepare_on_ray
from rec.runtime.training import train as train_on_ray
from rec.storage import Storage
from rec.train.job import train_here

ML_1M = PlantedConfig(users=6040, items=3416, interactions=999_611, modalities=("a",), shards=4)
EPOCHS = 3
START_UP = """
import json, sys, time
from rec.config import from_json
from rec.runtime.launch import train

at = {}
train(from_json(sys.argv[1]), lambda event: at.setdefault(event["kind"], time.time() - float(sys.argv[2])), print)
print(json.dumps(at))
"""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work some benchmarks do."""

    interactions: int
    trials: int
    minutes: float
    images: int
    items: int
    edges: int


def run(name: str, root: str | None, sizes: Sizes, json_file: str | None, say: Say) -> int:
    """Run one benchmark, print its table, and return 0."""
    with tempfile.TemporaryDirectory(prefix="rec-benchmark-") as folder:
        if name == "prepare":
            rows = _prepare(sizes.interactions, folder, say)
        elif name == "tune":
            from rec.runtime import benchmark_tune

            rows = benchmark_tune.measure(folder, sizes.trials, say)
        elif name == "serve":
            from rec.runtime import benchmark_serve

            rows = benchmark_serve.measure(folder, sizes.minutes, say)
        elif name == "encoders":
            from rec.runtime import benchmark_encoders

            rows = benchmark_encoders.measure(folder, sizes.images, say)
        elif name == "graph":
            data = Prepared.open(root) if root else graph_benchmark.baby_like(f"{folder}/data")
            rows = graph_benchmark.measure(data)
            say(f"neighbours of {sizes.items:,} items")
            rows.append(graph_benchmark.neighbours_row(sizes.items, 128, PeakMemory))
            rows += costs(sizes.edges, say)
        elif name == "moe":
            from rec.runtime import benchmark_moe

            say("the grid takes about ten minutes")
            rows = benchmark_moe.measure()
        else:
            data = Prepared.open(root) if root else _generated(f"{folder}/data", say)
            rows = evaluate_benchmark.measure(data) if name == "evaluate" else _train(data, folder, say)
    print(show(rows))
    if json_file:
        target = Path(json_file).absolute()
        Storage(str(target.parent)).write_json(target.name, [row.as_json() for row in rows])
    return 0


def _generated(root: str, say: Say) -> Prepared:
    say("making a data set of ML-1M's size")
    return prepare_data(DataConfig(root=root, source=SourceConfig(kind="planted", planted=ML_1M)), InProcess(), say)


def _train(data: Prepared, folder: str, say: Say) -> list[Row]:
    say("the step against bare matrix products")
    rows = train_benchmark.measure(data)
    say("the plain loop, then the same through Ray Train, DeepSpeed and Ray Data, then the plain loop again")
    plain = _Speed()
    train_here(_config(data, f"{folder}/plain-0", 0, 2), plain, say)
    ray = _Speed()
    train_on_ray(_config(data, f"{folder}/ray", 1, 2), ray, say)
    train_here(_config(data, f"{folder}/plain-1", 0, 2), plain, say)
    rows.append(Row("step through Ray, 1 worker of 2 threads, limit: plain loop", ray.step_s, "s", plain.step_s, 1.10))
    rows.append(Row("share of time waiting for data", ray.wait_share, "", goal=0.05))
    say("start-up with 2 workers")
    return rows + _start_up(_config(data, f"{folder}/start", 2, 1, epochs=1))


def _start_up(config: RunConfig) -> list[Row]:
    """Return how long a fresh process takes from its command to the first step, and where the seconds go."""
    command = [sys.executable, "-c", START_UP, to_json(config), str(time.time())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrainingError(f"start-up: the run failed: {done.stderr.strip().splitlines()[-1]}")
    at: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    rows = [Row("start-up to the first step, 2 workers", at["step"], "s", goal=20.0)]
    before = 0.0
    for stage in ("runtime", "placed", "imported", "ready", "step"):
        rows.append(Row(f"  until {stage}", at[stage] - before, "s"))
        before = at[stage]
    return rows


class _Speed:
    """The time of a step and the share spent waiting, from the events of all epochs but the first."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.waits: list[float] = []

    def __call__(self, event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == event["steps"] and event["epoch"] > 0:
            self.seconds.append(train_benchmark.BATCH / event["examples_per_s"])
            self.waits.append(event["wait_share"])

    @property
    def step_s(self) -> float:
        """Median seconds per step."""
        return statistics.median(self.seconds)

    @property
    def wait_share(self) -> float:
        """Median share of an epoch spent waiting for data."""
        return statistics.median(self.waits)


def _config(data: Prepared, out: str, workers: int, threads: int, epochs: int = EPOCHS) -> RunConfig:
    return RunConfig(
        system="rec.systems.msmrec:MSMRec",
        out=out,
        model=train_benchmark.CONFIG,
        data=DataConfig(root=data.storage.uri),
        train=TrainConfig(batch_size=train_benchmark.BATCH, epochs=epochs, evaluate_every=epochs),
        parallel=ParallelConfig(workers=workers, threads=threads),
    )


def _prepare(interactions: int, folder: str, say: Say) -> list[Row]:
    planted = PlantedConfig(interactions=interactions, modalities=("a", "b"), shards=max(8, interactions // 500_000))
    config = DataConfig(root=f"{folder}/data", source=SourceConfig(kind="planted", planted=planted))
    start_s = time.monotonic()
    with PeakMemory() as memory:
        data = prepare_on_ray(config, say)
    seconds = time.monotonic() - start_s
    kept = int(data.manifest["counts"]["interactions"])
    torch.set_num_threads(2)
    return [
        Row(f"resident memory of all processes, {kept:,} interactions", memory.peak_bytes / 2**30, "GiB", goal=4.0),
        Row("generated and prepared per second", kept / seconds, "1/s"),
    ]
