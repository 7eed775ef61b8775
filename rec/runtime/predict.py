"""Predicting with Ray Data: a pool of actors that hold the model, one part at a time."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray.data

from rec.errors import RecError
from rec.evaluation.predict import Order, Part, packed, unpacked
from rec.evaluation.predictor import Predictor
from rec.json_text import json_text
from rec.runtime.cluster import Demand, cpus_to_start, runtime


def predict_on_ray(
    order: Order, claim: dict[str, Any], parts: Sequence[Part], told: Callable[[int], None]
) -> Iterator[dict[str, Any]]:
    """Yield the notes of parts in the order in which they are whole, made by `parallel.workers` actors.

    An actor that is lost is started again, and its part with it.
    """
    parallel = order.config.parallel
    environment = {"OMP_NUM_THREADS": str(parallel.threads), "TOKENIZERS_PARALLELISM": "false"}
    with runtime(cpus_to_start(parallel), environment, demand=Demand.by_workers(parallel)):
        rows = [{"part": pickle.dumps(part)} for part in parts]
        resources = parallel.worker_resources
        notes = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=(packed(order), claim),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=min(parallel.fewest, len(parts)), max_size=min(parallel.workers, len(parts))
            ),
            num_cpus=resources["CPU"],
            num_gpus=resources.get("GPU"),
        )
        for row in notes.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            yield json.loads(row["note"])


class _Actor:
    """One actor of the pool: loads the run once."""

    def __init__(self, order: dict[str, Any], claim: dict[str, Any]) -> None:
        self.predictor: Predictor | None = None
        self.error = b""
        try:
            self.predictor = Predictor(unpacked(order), claim)
        except RecError as error:  # told with the first part: a failing actor would be restarted for ever
            self.error = pickle.dumps(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the note of the part that was made, or the error that is ours to tell."""
        note, error = "", self.error
        if self.predictor is not None:
            try:
                note = json_text(self.predictor(pickle.loads(batch["part"][0])))
            except RecError as found:
                error = pickle.dumps(found)
        return {"note": [note], "error": [error]}
