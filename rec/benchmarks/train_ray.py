"""Training through Ray Train, DeepSpeed and Ray Data beside the plain loop, and how long it takes to start."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import Times
from rec.benchmarks.train import BATCH, CONFIG
from rec.benchmarks.work import Say
from rec.config import RunConfig, to_json
from rec.data.config import DataConfig
from rec.data.prepared import Prepared
from rec.errors import TrainingError
from rec.runtime.training import train
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.job import train_here

EPOCHS = 3
START_UP = """
import json, sys, time
from rec.config import from_json
from rec.runtime.launch import train

at = {}
train(from_json(sys.argv[1]), lambda event: at.setdefault(event["kind"], time.time() - float(sys.argv[2])), print)
print(json.dumps(at))
"""


def measure(data: Prepared, folder: str, say: Say) -> list[Row]:
    """Return the time of a step through Ray beside the plain loop's, the share spent waiting, and the start-up."""
    say("the plain loop, then the same through Ray Train, DeepSpeed and Ray Data, then the plain loop again")
    plain, ray = _Speed(), _Speed()
    train_here(_config(data, f"{folder}/plain-0", 0, 2), plain, say)
    train(_config(data, f"{folder}/ray", 1, 2), ray, say)
    train_here(_config(data, f"{folder}/plain-1", 0, 2), plain, say)
    name = "step through Ray, 1 worker of 2 threads, limit: plain loop"
    rows = [
        timed(name, ray.step, plain.step, 1.10, physical=True),
        Row("share of time waiting for data", Times(rounds=tuple(ray.waits)).median, "", goal=0.05),
    ]
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
            self.seconds.append(BATCH / event["examples_per_s"])
            self.waits.append(event["wait_share"])

    @property
    def step(self) -> Times:
        """Seconds per step, one mean per epoch."""
        return Times(rounds=tuple(self.seconds))


def _config(data: Prepared, out: str, workers: int, threads: int, epochs: int = EPOCHS) -> RunConfig:
    return RunConfig(
        system="rec.systems.msmrec:MSMRec",
        out=out,
        model=CONFIG,
        data=DataConfig(root=data.root),
        train=TrainConfig(batch_size=BATCH, epochs=epochs, evaluate_every=epochs),
        parallel=ParallelConfig(workers=workers, threads=threads),
    )
