"""Predicting and measuring with Ray Data: a pool of actors that hold the model, one part of the examples at a time."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray.data

from rec.errors import RecError
from rec.evaluation.measure import of_all
from rec.evaluation.predict import PredictionOrder, PredictionPart, identity, packed, parts_of, rows_per_part, unpacked
from rec.evaluation.predictor import Predictor
from rec.evaluation.records import Records
from rec.evaluation.run import Trained
from rec.json_text import json_text
from rec.runtime.cluster import Demand, cpus_to_start, runtime
from rec.storage import absolute
from rec.train.config import ParallelConfig

Make = Callable[[Predictor, PredictionPart], bytes]
"""Returns what is wanted of a part."""


def predict_on_ray(
    order: PredictionOrder, claim: dict[str, Any], parts: Sequence[PredictionPart], told: Callable[[int], None]
) -> Iterator[dict[str, Any]]:
    """Yield the notes of parts in the order in which they are whole, made by `parallel.workers` actors.

    An actor that is lost is started again, and its part with it.
    """
    for _, note in _made(_note, order, claim, parts, order.config.parallel):
        yield json.loads(note)


class RayWorkers:
    """So many actors that measure a split, as `rec.evaluation.run.Workers`; each reserves what `[parallel]` says."""

    def __init__(self, count: int) -> None:
        self.count = count

    def records(self, run: Trained, split: str, told: Callable[[int], None]) -> dict[str, Records]:
        """Return the records of each task by its name, in the order of the data.

        Parts are whole batches of evaluation, so that their records are the ones that one process makes. An actor that
        is lost is started again, and its part with it.
        """
        config = run.config
        # Actors have working folders of their own.
        data = config.data.model_copy(update={"root": absolute(config.data.root)})
        order = PredictionOrder(
            config=config.model_copy(update={"out": absolute(config.out), "data": data}), folder=config.out, split=split
        )
        claim = {**identity(config), "split": split}
        rows = run.data.split_rows(split)
        parts = parts_of(rows, rows_per_part(rows, config.train.evaluate_batch_size))
        parallel = config.parallel.model_copy(update={"workers": self.count, "min_workers": 0})
        found: dict[int, dict[str, Records]] = {}
        done = 0
        for number, made in _made(_records, order, claim, parts, parallel) if parts else ():
            found[number] = pickle.loads(made)
            done += parts[number].stop - parts[number].start
            told(done)
        return of_all([found[part.number] for part in parts], run.system)


def _made(
    make: Make, order: PredictionOrder, claim: dict[str, Any], parts: Sequence[PredictionPart], parallel: ParallelConfig
) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each part and what actors make of it, in the order in which they are done."""
    environment = {"OMP_NUM_THREADS": str(parallel.threads), "TOKENIZERS_PARALLELISM": "false"}
    with runtime(cpus_to_start(parallel), environment, demand=Demand.by_workers(parallel)):
        rows = [{"part": pickle.dumps(part)} for part in parts]
        resources = parallel.worker_resources
        answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=(make, packed(order), claim),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=min(parallel.fewest, len(parts)), max_size=min(parallel.workers, len(parts))
            ),
            num_cpus=resources["CPU"],
            num_gpus=resources.get("GPU"),
        )
        for row in answers.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            yield row["number"], row["made"]


class _Actor:
    """One actor of the pool: loads the run once."""

    def __init__(self, make: Make, order: dict[str, Any], claim: dict[str, Any]) -> None:
        self.make = make
        self.predictor: Predictor | None = None
        self.error = b""
        try:
            self.predictor = Predictor(unpacked(order), claim)
        except RecError as error:  # told with the first part: a failing actor would be restarted for ever
            self.error = pickle.dumps(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return what was made of the part, or the error that is ours to tell."""
        part, made, error = pickle.loads(batch["part"][0]), b"", self.error
        if self.predictor is not None:
            try:
                made = self.make(self.predictor, part)
            except RecError as found:
                error = pickle.dumps(found)
        return {"number": [part.number], "made": [made], "error": [error]}


def _note(predictor: Predictor, part: PredictionPart) -> bytes:
    """Write a part and return its note."""
    return json_text(predictor(part)).encode()


def _records(predictor: Predictor, part: PredictionPart) -> bytes:
    """Return the records of a part."""
    return pickle.dumps(predictor.records(part))
