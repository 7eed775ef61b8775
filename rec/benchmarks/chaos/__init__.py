"""`rec benchmark chaos`: a run on real nodes of this machine goes through random faults and ends as if without."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rec.benchmarks.chaos.faults import FAULTS, Survived, order
from rec.benchmarks.chaos.training import Training
from rec.benchmarks.row import Row
from rec.benchmarks.work import Say
from rec.config import load, override
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.errors import TrainingError
from rec.runtime.local_cluster import LocalCluster, Shape, running
from rec.strict import resolve
from rec.train.job import train_here

History = Sequence[Mapping[str, Any]]
"""What was measured after each epoch."""
CONFIG = str(Path(__file__).resolve().parents[2] / "configs/demo.toml")
INTERVAL = 20
"""Steps between checkpoints."""
EPOCHS, WORKERS = 8, 3
"""Of training per fault, and the most workers."""
KEYS = (
    *("data.read.interactions=10000", "model.blocks=1", "model.dropout=0.0", "train.batch_size=24"),
    *(f"train.checkpoint_steps={INTERVAL}", "train.learning_rate=5e-4", "train.patience=1000"),
)
PARALLEL = (
    *(f"parallel.workers={WORKERS}", "parallel.min_workers=1", "parallel.grow_s=5"),
    "parallel.stall_timeout_s=120",
)
GOALS_S = {"worker": 30.0, "node": 60.0, "link": 60.0, "driver": 30.0}
"""Most seconds to the next step."""
SAME_LOSS = 1e-4
"""How far losses may be apart of those without faults, by ratio: other workers add sums in another order."""
SEEDS = 3
"""Of the run without faults, whose spread is what a metric may be apart: ranks flip where two scores nearly tie."""
EARLIEST, LATEST = 0.2, 0.8
"""Where in its stretch of the run a fault comes."""


@dataclass(frozen=True, slots=True)
class Chaos:
    """How much goes wrong."""

    faults: int = 10
    minutes: float = 20
    """When to give up."""
    seed: int = 0
    kinds: Sequence[str] = ()
    """Of faults, in their order; empty draws them."""


def measure(folder: str, chaos: Chaos, say: Say) -> list[Row]:
    """Return what the faults have cost, beside what they may cost.

    Raises:
        ConfigError: this machine cannot have several nodes.
        TrainingError: the run did not survive.
    """
    root = Path(folder)
    with running(f"c{os.getpid()}", Shape(rate="1gbit", state=str(root / "state"))) as nodes:
        return disturbed(nodes, root, chaos, say)


def disturbed(nodes: LocalCluster, root: Path, chaos: Chaos, say: Say) -> list[Row]:
    """Return the rows of a run on a cluster that is there, whose head has a state."""
    say(f"the same run without faults, in one process, with {SEEDS} seeds")
    keys, several = undisturbed(root, EPOCHS * chaos.faults, SEEDS)
    wanted = several[0]
    start_s = time.monotonic()
    run = Training(nodes, root, [*keys, *PARALLEL])
    try:
        rows = _through(run, chaos, wanted[-1]["total_step"], say)
        run.finish(_left(chaos, start_s))
    finally:
        run.process.kill()
    return [*rows, *_kept(run, several), Row("chaos: all of it", (time.monotonic() - start_s) / 60, "min")]


def undisturbed(root: Path, epochs: int, seeds: int = 1) -> tuple[list[str], list[History]]:
    """Return the config file and keys of a run that goes through faults, and histories of the same without any.

    The first is of the same seed, the others of other ones.
    """
    keys = [*KEYS, f"data.root={root / 'data'}", f"train.epochs={epochs}"]
    config = override(load(CONFIG), [*keys, "parallel.workers=0"])
    view = resolve(config.system).view
    prepare(config.data, InProcess(), lambda _: None, [view] if view else [])
    histories: list[History] = []
    for seed in range(config.train.seed, config.train.seed + seeds):
        one = override(config, [f"out={root / f'undisturbed-{seed}'}", f"train.seed={seed}"])
        histories.append(train_here(one, lambda _: None, lambda _: None).history)
    return [CONFIG, *keys], histories


def _through(run: Training, chaos: Chaos, steps: int, say: Say) -> list[Row]:
    """Have one fault after the other, each in its stretch of the run."""
    rng, start_s, rows = random.Random(chaos.seed), time.monotonic(), []
    for number, name in enumerate(chaos.kinds or order(chaos.faults, rng)):
        at = int(steps * (number + rng.uniform(EARLIEST, LATEST)) / chaos.faults)
        run.wait(lambda at=at: run.step() >= at and run.is_training(), _left(chaos, start_s))  # type: ignore[misc]
        survived: Survived = FAULTS[name](run, rng)
        if damaged := run.faults():
            raise TrainingError(f"after {name}: {'; '.join(damaged)}")
        told = f"step {at}: {survived.told}"
        say(f"{told}; next step after {survived.next_step_s:.1f} s")
        rows.append(Row(f"chaos: {told}: to the next step", survived.next_step_s, "s", goal=GOALS_S.get(name)))
    return rows


def _left(chaos: Chaos, start_s: float) -> float:
    return max(0.0, 60 * chaos.minutes - (time.monotonic() - start_s))


def _kept(run: Training, several: Sequence[History]) -> list[Row]:
    """Return what is left of the run beside those without faults."""
    again, lost = run.again(), run.lost()
    if lost:
        raise TrainingError("; ".join(lost))
    loss, farthest, last = apart(run.history(), several[0])
    spread = float(np.std([one[-1][one[-1]["metric"]] for one in several], ddof=1))
    beyond, most = (max((steps[which] for steps in again), default=0) for which in (0, 1))
    done = f"chaos: most steps done again of {INTERVAL} between checkpoints"
    return [
        Row("chaos: attempts after the first", len(again), ""),
        Row(done, most, "", INTERVAL, 1),
        Row("chaos: same, with those made while the next one was written", beyond, "", INTERVAL),
        Row("chaos: damaged files of checkpoints", len(run.faults()), "", goal=0),
        Row("chaos: loss, farthest from the run without faults", loss, "", goal=SAME_LOSS),
        Row("chaos: metric, farthest from the run without faults", farthest, ""),
        Row(f"chaos: metric at the end, distance from it, limit: spread of {SEEDS} seeds", last, "", spread, 1),
    ]


def apart(found: History, wanted: History) -> tuple[float, float, float]:
    """Return how far two histories are apart: losses by ratio at most, the metric by difference at most and at last.

    Raises:
        TrainingError: they are of other epochs.
    """
    if [one["total_step"] for one in found] != [one["total_step"] for one in wanted]:
        raise TrainingError(f"measured at other steps: {len(found)} times, expected {len(wanted)}")
    loss, metrics = 0.0, []
    for one, other in zip(found, wanted, strict=True):
        loss = max(loss, *(abs(one[name] / other[name] - 1) for name in other if name.startswith("loss/")))
        metrics.append(abs(one[one["metric"]] - other[one["metric"]]))
    return loss, max(metrics), metrics[-1]
