"""What a search costs beside bare training, and what stopping early saves.

A full search and one with successive halving draw the same points (random search, one seed) of the demo's space on a
small generated catalogue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rec.benchmarks.row import Row
from rec.benchmarks.work import CATALOGUE
from rec.config import RunConfig, from_table
from rec.data.config import DataConfig, TextConfig
from rec.data.generated.catalogue import CatalogueConfig
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.runtime.tuning import search
from rec.storage import Storage
from rec.tuning.results import read_trials
from rec.tuning.trial import FAILED, Trial

MODALITIES = ("narrative", "visual", "audio")
EPOCHS, CONCURRENT = 9, 2
SPACE = {
    "train.learning_rate": {"log": [1e-4, 1e-2]},
    "train.batch_size": {"choice": [32, 64, 128]},
    "model.dropout": {"uniform": [0.0, 0.5]},
    "model.temperature": {"log": [0.05, 2.0]},
}


def measure(folder: str, trials: int, say: Callable[[str], None]) -> list[Row]:
    """Return the overhead per trial, and how near successive halving comes at how many of the steps."""
    planted = CatalogueConfig(interactions=20_000, modalities=MODALITIES)
    text = TextConfig(modalities=MODALITIES, width=32)
    root = f"{folder}/data"
    prepare(DataConfig(root=root, source=CATALOGUE, read=planted, text=text), InProcess(), say)
    full_s, full = _search(root, f"{folder}/full", "none", trials, say)
    asha_s, asha = _search(root, f"{folder}/asha", "asha", trials, say)
    bare_s = sum(trial.train_s for trial in full)
    best, reached = _best(full), _best(asha)
    steps = sum(trial.steps for trial in asha), sum(trial.steps for trial in full)
    return [
        Row(
            "overhead per trial over its bare training, full search",
            (CONCURRENT * full_s - bare_s) / trials,
            "s",
            goal=15.0,
        ),
        Row("bare training per trial", bare_s / trials, "s"),
        Row(
            "trials that did not come to their end, both searches",
            2 * trials - _whole(full) - _whole(asha),
            "",
            goal=0.0,
        ),
        Row("asha: loss of the best validation ndcg@10, limit: full search", 1 - reached / best, "", goal=0.02),
        Row("asha: optimiser steps, limit: full search", steps[0], "", steps[1], 0.5),
        Row("asha: time, limit: full search", asha_s, "s", full_s),
        Row("best validation ndcg@10 of the full search", best, ""),
    ]


def _search(root: str, out: str, scheduler: str, trials: int, say: Callable[[str], None]) -> tuple[float, list[Trial]]:
    config = _config(root, out, scheduler, trials)
    start_s = time.monotonic()
    search(config, say)
    return time.monotonic() - start_s, read_trials(Storage(out))


def _config(root: str, out: str, scheduler: str, trials: int) -> RunConfig:
    return from_table(
        {
            "system": "rec.systems.msmrec:MSMRec",
            "out": out,
            "model": {"width": 32},
            "data": {"root": root},
            "train": {"epochs": EPOCHS},
            "parallel": {"workers": 1},
            "tune": {
                "trials": trials,
                "search": "random",
                "scheduler": scheduler,
                "concurrent": CONCURRENT,
                "space": SPACE,
            },
        }
    )


def _best(trials: Sequence[Trial]) -> float:
    return max(trial.best["ndcg@10"] for trial in trials if trial.best)


def _whole(trials: Sequence[Trial]) -> int:
    return sum(bool(trial.best) and trial.status != FAILED for trial in trials)
