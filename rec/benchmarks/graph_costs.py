"""What a training step on generated graphs costs as they grow, over the whole graph and over drawn neighbours."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rec.benchmarks.graph import FREEDOM, SystemOnBatch, planted_data
from rec.benchmarks.moe import peak_bytes
from rec.benchmarks.row import Row
from rec.benchmarks.timing import median_s
from rec.data.config import ContentConfig
from rec.data.generated.graph import PlantedGraphConfig
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.systems.lightgcn import GraphRecommender, LightGCN, LightGCNConfig
from rec.systems.magnet import Magnet
from rec.systems.magnet.config import MagnetConfig
from rec.train.memory import give_back

SMALLEST, GROWTH = 100_000, 10
PER_USER, PER_ITEM = 8, 24
"""Interactions of a user and of an item in the mean, Amazon Baby's."""
FANOUT = 10


def held_bytes() -> int:
    """Return this process' memory but for files that are mapped, as far as the system was given back what is free."""
    give_back()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) << 10


def costs(interactions: int, say: Callable[[str], None]) -> list[Row]:
    """Return seconds and memory of steps on graphs of 10^5 interactions and ten times as many, up to a number."""
    systems: list[tuple[str, type[GraphRecommender[Any]], Any]] = [
        ("LightGCN", LightGCN, LightGCNConfig()),
        (f"LightGCN, fanout {FANOUT}", LightGCN, LightGCNConfig(fanout=FANOUT)),
        ("FREEDOM-like", LightGCN, FREEDOM),
        ("MAGNET", Magnet, MagnetConfig()),
        (f"MAGNET, fanout {FANOUT}", Magnet, MagnetConfig(fanout=FANOUT)),
    ]
    rows = []
    size = SMALLEST
    while size <= interactions:
        planted = PlantedGraphConfig(users=size // PER_USER, items=size // PER_ITEM, interactions=size)
        told = f"{size:,} interactions, {planted.users:,} users, {planted.items:,} items"
        with TemporaryDirectory() as root:
            start_s = time.perf_counter()
            keys = planted_data(root, planted, ContentConfig(search="ivf"))
            data = prepare(keys, InProcess(), say).seen_as(LightGCN.view)
            rows.append(Row(f"{told}: prepared", time.perf_counter() - start_s, "s"))
            for name, system, config in systems:
                before = held_bytes()
                run = SystemOnBatch(system, config, data)
                held_mib = (held_bytes() - before) / 2**20
                rows.append(Row(f"{told}: {name}, memory of weights and edges", held_mib, "MiB"))
                rows.append(Row(f"{told}: {name}, a step", median_s(run.step, 3), "s"))
                rows.append(Row(f"{told}: {name}, peak of a step's tensors", peak_bytes(run.step) / 2**20, "MiB"))
                del run
                say(f"{told}: {name}")
        size *= GROWTH
    return rows
