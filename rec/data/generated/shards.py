"""Generated tables in shards, which tasks write apart from one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rec.data.schema import Workplace
from rec.data.writing import write_table
from rec.storage import Storage

Make = Callable[[Any, int], Mapping[str, pa.Table]]
"""Returns the tables of a shard by name, from the keys of the source and the shard's number."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard of generated tables."""

    config: Any
    """The keys of the source."""
    root: str
    shard: int
    make: Make


def generate(place: Workplace, config: Any, make: Make) -> None:
    """Write the tables of every shard below the folder of their name."""
    root = place.storage.uri_of("")
    place.runner.map(
        write_shard, [ShardTask(config, root, shard, make) for shard in range(config.shards)], "prepare: generate"
    )


def generate_once(place: Workplace, config: Any, make: Make, name: str) -> None:
    """Write the tables of every shard, unless a job that was stopped has made all of them from the same keys.

    Args:
        place: Where to.
        config: The keys of the source.
        make: Makes a shard's tables.
        name: Of the file that tells what they were made from.
    """
    storage, made_from = place.storage, config.model_dump(mode="json")
    if not storage.exists(f"{name}.json") or storage.read_json(f"{name}.json") != made_from:
        storage.delete("")
        generate(place, config, make)
        storage.write_json(f"{name}.json", made_from)


def write_shard(task: ShardTask) -> None:
    """Write the tables of one shard; those without a row are left out."""
    for name, table in task.make(task.config, task.shard).items():
        if len(table):
            write_table(Storage(task.root), f"{name}/part-{task.shard:05d}.parquet", table)
