"""`evaluation/SPLIT/measurement.json`: what measuring a run cost, by which code, where, when, on which data.

Beside it, in `evaluation/SPLIT-HASH`, lies what was measured before by other keys of `[evaluate]`.

It stands apart from the metrics, which come out the same each time, and is bound to their file by a checksum.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from torch import nn

from rec import provenance
from rec.evaluation.protocol import Manifest, data_of
from rec.evaluation.tasks.config import EvaluateConfig
from rec.json_text import json_text
from rec.storage import Storage
from rec.strict import flat
from rec.train.memory import peaks, restart_peaks

FILE, METRICS, FORMAT = "measurement.json", "metrics.json", 1


class Stopwatch:
    """Seconds and memory from its making on."""

    def __init__(self, device: str) -> None:
        self.device, self.started_s = device, time.monotonic()
        restart_peaks(device)

    def read(self) -> dict[str, Any]:
        """Return what has gone by, and the most memory there was."""
        return {"seconds": time.monotonic() - self.started_s, **peaks(self.device)}


def write_measurement(
    storage: Storage,
    split: str,
    metrics: bytes,
    *,
    watch: Stopwatch,
    module: nn.Module,
    manifest: Manifest,
    keys: EvaluateConfig,
    from_predictions: bool,
    workers: int,
) -> None:
    """Write the record of a measurement, before its metrics: their file, as bytes, says that all is there."""
    folder = f"evaluation/{split}"
    found = {
        "format": FORMAT,
        "metrics_sha256": hashlib.sha256(metrics).hexdigest(),
        "date": provenance.now(),
        "code": provenance.code(),
        "versions": provenance.versions(),
        "machine": provenance.machine(watch.device),
        "from_predictions": from_predictions,
        "workers": workers,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "data": data_of(manifest),
        "keys": keys.model_dump(mode="json"),
        **watch.read(),
    }
    storage.write_json(f"{folder}/{FILE}", found)


def keep_former(storage: Storage, split: str, keys: EvaluateConfig) -> str:
    """Move the measurement that is on file to a folder of its own where it was made by other keys than these.

    Returns what a person should know of it, in words; "" where nothing was moved. What was moved before and was made by
    these keys is deleted, as it is about to be made again.
    """
    found = read_measurement(storage, split)
    ours = flat(keys.model_dump(mode="json"))
    storage.delete(_kept(split, ours))
    if found is None:
        return ""
    # Keys that are newer than a measurement had their defaults in it.
    theirs = flat(EvaluateConfig().model_dump(mode="json")) | flat(found["keys"])
    differ = [name for name, value in theirs.items() if ours.get(name) != value]
    if not differ:
        return ""
    target = _kept(split, theirs)
    storage.delete(target)
    storage.move(f"evaluation/{split}", target)
    told = ", ".join(
        f"evaluate.{name}={'unset' if theirs[name] is None else json_text(theirs[name])}" for name in differ
    )
    return f"{storage.uri}: the former measurement of {split}, with {told}, is kept in {target}"


def _kept(split: str, keys: Mapping[str, Any]) -> str:
    """Return the folder of a former measurement by these keys."""
    return f"evaluation/{split}-{hashlib.sha256(json_text(keys, sort_keys=True).encode()).hexdigest()[:8]}"


def read_measurement(storage: Storage, split: str) -> dict[str, Any] | None:
    """Return the record of the metrics that are on file, None where they have none."""
    name, beside = (f"evaluation/{split}/{file}" for file in (FILE, METRICS))
    if not storage.exists(name) or not storage.exists(beside):
        return None
    found: dict[str, Any] = storage.read_json(name)
    metrics = storage.sha256(beside)
    return found if found.get("format") == FORMAT and found.get("metrics_sha256") == metrics else None
