"""Preparing a data set with Ray Data: every part of a pass is a task, encoders are a pool of actors."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import ray.data
from ray import cloudpickle

from rec.data import prepare as passes
from rec.data.encoders import TransformerEncoder
from rec.data.prepared import Prepared
from rec.errors import RecError
from rec.keys import DataConfig, TextConfig
from rec.progress import Progress
from rec.runtime.cluster import runtime

T = TypeVar("T")
R = TypeVar("R")


class OnRay:
    """Runs the parts of a pass as Ray Data tasks, one CPU each."""

    def map(self, function: Callable[[T], R], tasks: Sequence[T], title: str) -> list[R]:
        """Return `function(task)` for every task."""
        rows = [{"index": i, "task": cloudpickle.dumps(task)} for i, task in enumerate(tasks)]
        packed = cloudpickle.dumps(function)

        def run(row: dict[str, Any]) -> dict[str, Any]:
            try:
                result = pickle.loads(packed)(pickle.loads(row["task"]))
                return {"index": row["index"], "result": pickle.dumps(result), "error": b""}
            except RecError as error:
                return {"index": row["index"], "result": b"", "error": pickle.dumps(error)}

        done: dict[int, bytes] = {}
        progress = Progress(title, len(tasks))
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(run, num_cpus=1)
        for row in dataset.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            done[row["index"]] = row["result"]
            progress.show(len(done))
        return [pickle.loads(done[i]) for i in range(len(tasks))]

    def encode(self, texts: Sequence[str], config: TextConfig) -> np.ndarray:
        """Return the texts' vectors under a transformers model, computed by a pool of actors."""
        rows = [{"index": i, "text": text} for i, text in enumerate(texts)]
        encoded = ray.data.from_items(rows).map_batches(
            _Encode,
            fn_constructor_args=(config.encoder, config.pooling, config.max_tokens),
            batch_size=config.batch_size,
            compute=ray.data.ActorPoolStrategy(size=config.actors),
            num_cpus=1,
        )
        progress = Progress("prepare: encode", len(texts))
        vectors: list[Any] = [None] * len(texts)
        done = 0
        for batch in encoded.iter_batches(batch_size=config.batch_size, batch_format="numpy"):
            for index, vector in zip(batch["index"], batch["vector"], strict=True):
                vectors[int(index)] = vector
            done += len(batch["index"])
            progress.show(done)
        return np.stack(vectors)


class _Encode:
    """One actor of the pool: loads the model once."""

    def __init__(self, name: str, pooling: str, max_tokens: int) -> None:
        self.encoder = TransformerEncoder(name, pooling, max_tokens)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the batch's vectors beside their places."""
        return {"index": batch["index"], "vector": self.encoder.encode(batch["text"].tolist())}


def prepare(config: DataConfig, say: Callable[[str], None], cpus: int = 2) -> Prepared:
    """Return the data set made from `config` on the cluster, or on this machine with `cpus` tasks at a time."""
    with runtime(cpus - 1):
        return passes.prepare(config, OnRay(), say)
