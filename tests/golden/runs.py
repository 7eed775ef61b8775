"""Small versions of the shipped configs on generated data, and what is recorded of each.

`python -m tests.golden.runs [NAME...]` renews the files on purpose.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rec.batch import RaggedColumn
from rec.config import RunConfig, from_table, override
from rec.data.prepare import prepare
from rec.data.prepared import Prepared, open_prepared
from rec.data.runner import InProcess
from rec.data.stream import CachedReader, to_columns
from rec.train.checkpoint import CheckpointStore
from rec.train.engine import LocalEngine
from rec.train.feed import PlannedFeed
from rec.train.job import build, claim, write_history
from rec.train.loop import Job, fit
from rec.train.ranks import OneRank
from rec.train.saver import Saver

FOLDER = Path(__file__).parent
CONFIGS = FOLDER.parents[1] / "rec" / "configs"
STEPS = 20
MODALITIES = ["narrative", "visual", "audio"]
SEQUENCES = {
    "shard_rows": 64,
    "source": "rec.data.generated.catalogue:PlantedCatalogue",
    "read": {"interactions": 5000, "users": 220, "items": 130, "modalities": MODALITIES},
    "text": {"modalities": MODALITIES, "width": 16},
}
KNOWN = SEQUENCES | {"text": {"modalities": MODALITIES, "width": 16, "user_items": 5}}
"""With a text of each user and item beside."""
FOOD = {"pairs": 900, "users": 90, "foods": 80, "picture_size": 24, "shards": 3}
TEXT = {"encoder": "tfidf", "width": 16, "max_tokens": 24, "vocabulary": 400}
VECTORS = {"encoder": "tfidf", "width": 16, "tokenizer": ""}
PAIRS = {
    "shard_rows": 40,
    "source": "rec.data.generated.food:PlantedFood",
    "read": FOOD,
    "split": {"protocol": "ratio", "cold_users": 0.1, "cold_items": 0.1},
    "encode": {"text": TEXT, "image": {"encoder": "raw", "size": 16, "thumbnail": 0}, "shard_items": 30},
}
GUIDELINES = PAIRS | {
    "read": FOOD | {"guidelines": 3, "told": True},
    "encode": {"text": {"tokenizer": ""}, "image": {"pixels": False, "thumbnail": 0}},
}
ORDERS = {
    "shard_rows": 64,
    "source": "rec.data.generated.orders:PlantedOrders",
    "read": {"interactions": 4000, "events": 20, "items": 120, "topics": 12, "groups": 4},
}
GRAPH = {
    "source": "rec.data.generated.graph:PlantedGraph",
    "read": {"users": 250, "items": 120, "interactions": 4000, "width": 8},
    "split": {"protocol": "mmrec"},
}
ONE = {
    "shard_rows": 40,
    "source": "rec.data.generated.food:PlantedFood",
    "read": FOOD,
    "text": {"modalities": ["text", "title"], "width": 16},
    "encode": {"text": VECTORS, "image": {"encoder": "raw", "pixels": False, "thumbnail": 0}},
    "content": {"modalities": ["text", "image"]},
}
"""One data set that all systems read."""
VISITS = {
    "source": "rec.data.generated.visits:PlantedVisits",
    "read": {"visits": 160, "medications": 24, "conditions": 8, "shards": 2},
    "split": {"protocol": "given"},
    "encode": {"text": VECTORS},
}
REVIEWS = {
    "source": "rec.data.generated.reviews:PlantedReviews",
    "read": {"reviews": 1000, "users": 60, "items": 40, "clusters": 3, "words": 24, "details": 3, "shards": 2},
    "filter": {"core": 2},
    "split": {"protocol": "warm", "test": 0.1},
}
SHORT = ["train.epochs=2", "train.evaluate_every=1", "train.patience=0", "parallel.workers=0", "parallel.threads=1"]
SMALL_BATCH = [*SHORT, "train.batch_size=16", "train.warmup_steps=5"]
SMALL_PAIRS = [*SMALL_BATCH, "train.epochs=4", "train.validation_share=1.0"]
EXPERTS = [
    "model.hidden=128",
    "model.gate=user",
    "model.mixture.experts=4",
    "model.mixture.per_row=1",
    "model.mixture.shared=true",
    "model.mixture.zero_start=true",
    "model.mixture.routed_scale=2.0",
    "model.mixture.noise=false",
]
SMALL_VISITS = [*SHORT, "train.batch_size=16", "train.learning_rate=1e-3"]
SMALL_REVIEWS = [
    *SHORT,
    "train.epochs=5",
    "train.batch_size=32",
    "train.learning_rate=5e-3",
    "model.width=32",
    "model.hidden=32",
]
WRITTEN = REVIEWS | {
    "split": {"protocol": "warm", "validation": 0.1, "test": 0.1},
    "encode": {"text": {"tokenizer": "bytes", "vocabulary": 300}},
}
SMALL_WRITER = [
    *SHORT,
    "train.batch_size=64",
    "train.phases.vae.epochs=2",
    "train.phases.vae.batch_size=256",
    "train.phases.mixture.epochs=1",
    "train.phases.mixture.batch_size=256",
    "model.language.width=16",
    "model.language.hidden=32",
]
SMALL_GRAPH = [*SHORT, "train.epochs=3", "train.batch_size=256"]
RUNS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "demo": ("demo", SEQUENCES, SMALL_BATCH),
    "ml-100k": ("ml-100k", SEQUENCES, SMALL_BATCH),
    "ml-100k-chat": ("ml-100k-chat", SEQUENCES, SMALL_BATCH),
    "ml-1m": ("ml-1m", SEQUENCES, SMALL_BATCH),
    "sasrec": ("ml-1m", SEQUENCES, [*SMALL_BATCH, "model.gate=none"]),
    "sasrec-bce": ("ml-1m", SEQUENCES, [*SMALL_BATCH, "model.gate=none", "model.loss=bce"]),
    "ml-100k-kar": ("ml-100k-kar", KNOWN, SMALL_BATCH),
    "orders": ("orders", ORDERS, SMALL_BATCH),
    "msmrec-experts": (
        "demo",
        SEQUENCES,
        [
            *SMALL_BATCH,
            "model.gate=item",
            "model.temperature=0.1",
            "model.feedforward_mixture.experts=4",
            "model.loss=gbce",
            "model.output_mix=gate",
            "model.balance_weight=0.01",
        ],
    ),
    "food": ("food", PAIRS, SMALL_PAIRS),
    "food-experts": ("food", PAIRS, [*SMALL_PAIRS, *EXPERTS]),
    "food-reference": (
        "food",
        PAIRS,
        [*SMALL_PAIRS, *EXPERTS, "model.gate=pair", "model.mixture.per_row=2", "model.mixture.noise=true"],
    ),
    "food-dense": ("food", PAIRS, [*SMALL_PAIRS, "model.hidden=128"]),
    "food-classification": ("food", PAIRS, [*SMALL_PAIRS, *EXPERTS, "model.head=classification"]),
    "food-guidelines": ("food-guidelines", GUIDELINES, SMALL_PAIRS),
    "hummus": ("hummus", PAIRS, SMALL_PAIRS),
    "recipes": ("recipes", PAIRS, SMALL_PAIRS),
    "ml-100k-posters": ("ml-100k-posters", PAIRS, SMALL_PAIRS),
    "graph": ("graph", GRAPH, SMALL_GRAPH),
    "baby-magnet": ("baby-magnet", GRAPH, [*SMALL_GRAPH, "model.contrast_nodes=64"]),
    "ml-100k-graph": ("ml-100k-graph", GRAPH, SMALL_GRAPH),
    "baby-lightgcn": ("baby-lightgcn", GRAPH, SMALL_GRAPH),
    "bpr": ("baby-lightgcn", GRAPH, [*SMALL_GRAPH, "model.layers=0", "model.regularisation=0.1"]),
    "vbpr": (
        "baby-lightgcn",
        GRAPH,
        [*SMALL_GRAPH, "model.layers=0", "model.regularisation=1.0", 'model.features=["image", "text"]'],
    ),
    "one-msmrec": ("ml-100k-one-msmrec", ONE, SMALL_BATCH),
    "one-lightgcn": ("ml-100k-one-lightgcn", ONE, SMALL_GRAPH),
    "one-magnet": ("ml-100k-one-magnet", ONE, SMALL_GRAPH),
    "one-healthmoe": ("ml-100k-one-healthmoe", ONE, SMALL_PAIRS),
    "eicu": ("eicu", VISITS, SMALL_VISITS),
    "mimic-iii": ("mimic-iii", VISITS, SMALL_VISITS),
    "mimic-iv": ("mimic-iv", VISITS, SMALL_VISITS),
    "visits": ("visits", VISITS, SMALL_VISITS),
    "visits-switches": (
        "visits",
        VISITS,
        [
            *SMALL_VISITS,
            "model.fusion=moe",
            "model.patient_moe=true",
            "model.history_gate=true",
            "model.missing_text_mask=true",
            "model.section_dropout=0.1",
            "model.ddi_weight=0.1",
            "model.ddi_target=0.02",
            "model.refresh_every=2",
        ],
    ),
    "visits-safedrug": ("visits-safedrug", VISITS, SMALL_VISITS),
    "visits-logistic": ("visits-safedrug", VISITS, [*SMALL_VISITS, "model.kind=logistic"]),
    "peter": ("peter", REVIEWS, SMALL_REVIEWS),
    "peter-feature": ("peter", REVIEWS, [*SMALL_REVIEWS, "model.feature=true", "model.words=15"]),
    "reviews": ("reviews", WRITTEN, SMALL_WRITER),
    "musical-instruments": (
        "musical-instruments",
        WRITTEN,
        [*SMALL_WRITER, "model.prompt.feature=true", "model.prompt.rating=given", "model.experts.balance_weight=0.01"],
    ),
    "freedom": (
        "baby-lightgcn",
        GRAPH,
        [*SMALL_GRAPH, "model.content={text=1.0}", "model.edge_dropout=0.8", "model.regularisation=0.0"],
    ),
}
"""Name: the shipped config, the data in the place of its own, and further overrides."""


class Recorded(LocalEngine):
    """The plain engine, which notes the loss and the gradient norm of every step."""

    def __init__(self, module: nn.Module, config: Any, device: str = "cpu") -> None:
        super().__init__(module, config, device)
        self.losses: list[float] = []
        self.norms: list[float] = []

    def backward(self, loss: torch.Tensor, *, last: bool = True) -> None:
        self.losses.append(float(loss.detach()))
        super().backward(loss, last=last)

    def step(self, rate: float) -> torch.Tensor:
        norm = super().step(rate)
        self.norms.append(float(norm))
        return norm


def small(name: str, folder: Path) -> RunConfig:
    """Return the small version of a run in a folder."""
    config, data, overrides = RUNS[name]
    table = tomllib.loads((CONFIGS / f"{config}.toml").read_text())
    table |= {"data": {"root": str(folder / "data"), **data}, "out": str(folder / "run"), "expect": {}}
    return override(from_table(table), overrides)


def record(name: str, folder: Path) -> dict[str, Any]:
    """Return what is on file of a run: what was prepared, the first steps, validation, test."""
    from rec.evaluation.run import evaluate_run

    config = small(name, folder)
    prepare(config.data, InProcess(), lambda _: None)
    data = open_prepared(config)
    torch.set_num_threads(1)
    system, engines = build(config, data), []
    storage = claim(config)
    store = CheckpointStore(storage.below("checkpoints"))

    def wrap(module: nn.Module, keys: Any) -> LocalEngine:
        engines.append(Recorded(module, keys))
        return engines[-1]

    saver = Saver(store, OneRank(), partial(write_history, storage))

    reader = CachedReader(data.storage, system.columns)
    feed = PlannedFeed(data, system, config.train, reader, 0, 1)
    progress = fit(Job(system, config.train, wrap, feed, lambda _: None, saver))
    numbers = evaluate_run(config, "test")
    losses = [value for engine in engines for value in engine.losses]
    norms = [value for engine in engines for value in engine.norms]
    return {
        "counts": {**data.manifest["counts"], **{split: len(data.rows(split)) for split in ("train", "val", "test")}},
        "rows": {split: rows_hash(data, split) for split in ("train", "val", "test")},
        "steps": progress.total_step,
        "parameters": sum(parameter.numel() for parameter in system.model().parameters()),
        "losses": losses[:STEPS],
        "norms": norms[:STEPS],
        "validation": plain(progress.history[-1]),
        "test": plain(numbers["metrics"]),
        "popularity": plain(next(iter(numbers["baselines"].values()))),
        "test users": numbers["examples"],
    }


def rows_hash(data: Prepared, split: str) -> str:
    """Return a hash of the rows of a split, in order."""
    digest = hashlib.sha256()
    for column in to_columns(data.rows(split)).values():
        for value in column if isinstance(column, RaggedColumn) else [column]:
            digest.update(as_bytes(value) + b"|")
    return digest.hexdigest()[:16]


def as_bytes(value: Any) -> bytes:
    """Return numbers, or lists of lists of them, or texts, as bytes."""
    if isinstance(value, np.ndarray) and value.dtype == object and all(isinstance(one, str) for one in value):
        return "\n".join(value).encode()
    if isinstance(value, RaggedColumn) and len(value):
        return b"".join(as_bytes(one) + b"," for one in value)
    return np.asarray(value, dtype=np.int64).tobytes()


def plain(found: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a record, without those of single experts."""
    return {k: v for k, v in sorted(found.items()) if isinstance(v, int | float) and not k.startswith("moe/")}


def path(name: str) -> Path:
    """Return where a run's numbers are."""
    return FOLDER / f"{name}.json"


def main(names: list[str]) -> None:
    """Renew the files of these runs, or of all."""
    for name in names or RUNS:
        with tempfile.TemporaryDirectory() as folder:
            path(name).write_text(json.dumps(record(name, Path(folder)), indent=1) + "\n")
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
