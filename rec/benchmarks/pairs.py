"""Stage 1 of GaVaMoE: epochs on generated pairs beside the bare products and gathers of their steps."""

from __future__ import annotations

from collections.abc import Mapping

from rec.benchmarks.row import Row, timed
from rec.benchmarks.steps import Steps
from rec.benchmarks.timing import cpu_s, in_turns, side_by_side
from rec.benchmarks.work import Say
from rec.config import RunConfig, from_table
from rec.data.prepare import prepare
from rec.data.runner import InProcess

STEPS, REPEATS, BATCH, GOAL = 4, 5, 4096, 2.0
SIZES: Mapping[str, Mapping[str, int]] = {
    "width 64": {},
    "width 256": {"embedding": 256, "hidden": 512, "latent": 32},
}
PHASES = ("vae", "mixture")


def measure(folder: str, pairs: int, say: Say) -> list[Row]:
    """Return the time of an epoch of each phase, in every size, on about so many pairs."""
    say(f"generating {pairs:,} pairs")
    prepare(config_of(folder, pairs, {}).data, InProcess(), say)
    found = []
    for size, keys in SIZES.items():
        for phase in PHASES:
            say(f"stage 1, {size}: steps of phase {phase} and their bare products in turns")
            found += epoch(f"{size}, phase {phase}", config_of(folder, pairs, keys), phase)
    return found


def config_of(folder: str, pairs: int, keys: Mapping[str, int]) -> RunConfig:
    """Return a run on generated pairs."""
    small = {"width": 8, "layers": 1, "heads": 1, "hidden": 8}
    return from_table(
        {
            "system": "rec.systems.gavamoe:GaVaMoE",
            "out": f"{folder}/run",
            "data": {
                "root": f"{folder}/pairs",
                "source": "rec.data.generated.reviews:PlantedReviews",
                "read": {"reviews": pairs, "details": 0},
                "split": {"protocol": "warm", "validation": 0.1, "test": 0.1},
                "encode": {"text": {"tokenizer": "bytes", "vocabulary": 300}},
            },
            "model": {"pairs": dict(keys), "language": small, "experts": {"experts": 0}},
            "train": {"batch_size": BATCH, "optimiser": "adam"},
        }
    )


def epoch(name: str, config: RunConfig, phase: str) -> list[Row]:
    """Return the time of an epoch from rows to new weights, on the clock and of the processor."""
    steps = Steps(config, STEPS, phase)
    bare = steps.bare()
    times, limits = (found.scaled(steps.epochs) for found in side_by_side(steps, bare, REPEATS))
    busy, limit_busy = (found.scaled(steps.epochs) for found in in_turns([steps, bare], REPEATS, clock=cpu_s))
    told = f"stage 1, {name}: epoch of {steps.in_epoch:,} steps of {BATCH:,} pairs"
    return [
        timed(f"{told}, limit: bare products", times, limits, GOAL, physical=True),
        timed(f"{told}, CPU time, limit: bare products", busy, limit_busy, GOAL, physical=True),
    ]
