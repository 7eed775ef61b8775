"""Speed and memory of preparing generated interactions with Ray Data."""

from __future__ import annotations

import time

import torch

from rec.benchmarks.memory import PeakMemory
from rec.benchmarks.row import Row
from rec.benchmarks.work import CATALOGUE, VIEW, Say
from rec.data.generated.catalogue import CatalogueConfig
from rec.keys_data import DataConfig
from rec.runtime.prepare import prepare


def measure(interactions: int, folder: str, say: Say) -> list[Row]:
    """Return the peak memory of all processes and how many interactions are generated and prepared per second."""
    planted = CatalogueConfig(interactions=interactions, modalities=("a", "b"), shards=max(8, interactions // 500_000))
    config = DataConfig(root=f"{folder}/data", source=CATALOGUE, read=planted)
    start_s = time.monotonic()
    with PeakMemory() as memory:
        data = prepare(config, say, [VIEW])
    seconds = time.monotonic() - start_s
    kept = int(data.manifest["counts"]["interactions"])
    torch.set_num_threads(2)
    return [
        Row(f"resident memory of all processes, {kept:,} interactions", memory.peak_bytes / 2**30, "GiB", goal=4.0),
        Row("generated and prepared per second", kept / seconds, "1/s"),
    ]
