"""Medication sets for visits: epochs beside their bare products, texts of visits, cohorts, one visit served.

The data set has MIMIC-III's published size: 15,000 visits, 112 medications.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from rec.benchmarks import visits_cohort, visits_served
from rec.benchmarks.row import Row, timed
from rec.benchmarks.steps import Steps
from rec.benchmarks.timing import cpu_s, in_turns, side_by_side
from rec.benchmarks.work import Say
from rec.config import RunConfig, load
from rec.data.encoders import Tfidf, text_encoder_from
from rec.data.prepare import prepare
from rec.data.prepared import open_prepared
from rec.data.runner import InProcess
from rec.json_text import json_text
from rec.train.memory import keep_freed_memory

CONFIGS = Path(__file__).parents[1] / "configs"
SYSTEMS: Mapping[str, tuple[str, tuple[str, ...], float | None]] = {
    "NLA-MMR": ("visits.toml", (), 20.0),
    "recurrent baseline": ("visits-safedrug.toml", (), None),
    "logistic regression": ("visits-safedrug.toml", ("model.kind=logistic",), None),
}
"""What is trained: its config, what is changed there, and the most seconds of an epoch."""
STEPS, REPEATS, TEXTS = 6, 7, 2_000


def measure(folder: str, rows: int, say: Say) -> list[Row]:
    """Return every measurement; cohorts are built of so many prescriptions."""
    keep_freed_memory()
    torch.set_num_threads(1)
    say("generating visits of MIMIC-III's published size")
    configs = {name: config_of(folder, *told[:2]) for name, told in SYSTEMS.items()}
    first = next(iter(configs.values()))
    configs = {name: config.model_copy(update={"data": first.data}) for name, config in configs.items()}
    prepare(first.data, InProcess(), say)
    found: list[Row] = []
    for name, (_, _, goal) in SYSTEMS.items():
        say(f"{name}: steps and their bare products in turns")
        found += epoch(name, configs[name], goal)
    say("texts of visits")
    found += texts(first)
    say(f"a cohort of {rows:,} prescriptions")
    found += visits_cohort.measure(folder, rows, say)
    return found + visits_served.measure(folder, configs, say)


def config_of(folder: str, file: str, overrides: Sequence[str]) -> RunConfig:
    """Return a shipped config on the data set of a folder, with a run of its own there."""
    own = [f"data.root={json_text(f'{folder}/data')}", f"out={json_text(f'{folder}/{len(overrides)}-{file}')}"]
    return load(CONFIGS / file, [*own, *overrides])


def epoch(name: str, config: RunConfig, goal_s: float | None) -> list[Row]:
    """Return the time of an epoch of training from rows to new weights, beside its bare products, and by itself."""
    steps = Steps(config, STEPS)
    bare_steps = steps.bare()
    ours, bare = (times.scaled(steps.epochs) for times in side_by_side(steps, bare_steps, REPEATS))
    busy, bare_busy = (times.scaled(steps.epochs) for times in in_turns([steps, bare_steps], REPEATS, clock=cpu_s))
    told = f"{name}: epoch of {steps.in_epoch:,} steps of {config.train.batch_size} visits"
    return [
        timed(f"{told}, limit: bare products", ours, bare, 2.0, physical=True),
        timed(f"{told}, CPU time, limit: bare products", busy, bare_busy, 2.0, physical=True),
        Row(f"{told}, one thread", ours.median, "s", goal=goal_s),
    ]


def texts(config: RunConfig) -> list[Row]:
    """Return the time to encode texts of visits as serving does, all at once and one by one, beside scikit-learn's."""
    data = open_prepared(config)
    encoder = text_encoder_from(data.tables(["text_encoder"])["text_encoder"])
    titles = data.entity("diagnosis")["title"].to_pylist()
    lists = data.rows("train")["diagnoses"].to_pylist()[:TEXTS]
    written = list(dict.fromkeys("; ".join(titles[code] for code in codes) for codes in lists))
    inner = encoder.encoder
    assert isinstance(inner, Tfidf)
    assert inner.basis_FC is not None
    basis_FC = inner.basis_FC

    def bare(some: list[str]) -> np.ndarray:
        return np.asarray(inner.vectorizer.transform(some) @ basis_FC)

    together = side_by_side(lambda: encoder.encode(written), lambda: bare(written), REPEATS)
    few = [[text] for text in written[:200]]
    alone = side_by_side(
        lambda: [encoder.encode(one) for one in few], lambda: [bare(one) for one in few], REPEATS
    )  # fmt: skip
    ours, theirs = (times.scaled(1 / len(few)) for times in alone)
    return [
        timed(f"{len(written):,} texts of visits encoded, limit: scikit-learn alone", *together, 1.5, physical=True),
        timed("one text of a visit encoded, limit: scikit-learn alone", ours, theirs, 1.5, physical=True),
    ]
