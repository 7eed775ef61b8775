"""Frozen encoders through Ray Data beside a bare loop of transformers, and memory as pictures grow in number."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch

from rec.benchmarks import bare_encoders, healthmoe
from rec.benchmarks.memory import PeakMemory
from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import Times
from rec.data.config import ImageEncodingConfig, TextEncodingConfig
from rec.data.encode import EncodedShard, Encoders, EncodeTask, Recipe
from rec.data.generated.food import FoodConfig, food_rows
from rec.data.runner import Actors
from rec.data.schema import EntityTable
from rec.data.tables import ForeignTable, pieces
from rec.runtime.cluster import runtime
from rec.runtime.prepare import OnRay

THREADS, SHARD = 2, 256
IMAGES, TEXTS, SIZE = 1024, 8192, 224
TEXT_SHARD = 2048
"""What a config has unless it says otherwise; pictures take so much longer that fewer of them make a shard here."""
FEW, MANY, SMALL = 10_000, 100_000, 32
NO_TEXT = TextEncodingConfig(tokenizer="")
AIM = 1 / 0.9


@dataclass(frozen=True, slots=True)
class TimedEncoders:
    """Makes encoders that also tell when they began and ended a shard; what came before counts as start-up."""

    recipe: Recipe

    def __call__(self) -> Callable[[EncodeTask], tuple[EncodedShard, float, float]]:
        """Return the function of one actor."""
        encoders = Encoders(self.recipe)

        def timed(task: EncodeTask) -> tuple[EncodedShard, float, float]:
            start_s = time.time()
            return encoders(task), start_s, time.time()

        return timed


def measure(folder: str, images: int, say: Callable[[str], None]) -> list[Row]:
    """Return throughput of pictures and texts through Ray Data beside the bare loop, and memory for few and many."""
    models = bare_encoders.models(Path(folder), SIZE)
    say(f"writing {IMAGES} pictures of {SIZE} pixels and {TEXTS} texts")
    _write(f"{folder}/photos/part.parquet", IMAGES, SIZE)
    _write(f"{folder}/texts/part.parquet", TEXTS, 16)
    see = Recipe(NO_TEXT, ImageEncodingConfig(encoder=models["vit"], pixels=False, thumbnail=0), threads=THREADS)
    read = Recipe(TextEncodingConfig(encoder=models["bert"], tokenizer="", max_tokens=32), None, threads=THREADS)
    say("a training step beside its encoders")
    rows = healthmoe.measure(f"{folder}/food", THREADS)
    say("full rankings beside their experts' products")
    rows += healthmoe.ranking()
    torch.set_num_threads(THREADS)
    with runtime(THREADS):
        for name, recipe, source, size, bare in (
            ("pictures", see, "photos", SHARD, bare_encoders.pictures),
            ("texts", read, "texts", TEXT_SHARD, bare_encoders.texts),
        ):
            say(f"{name}: the bare loop and Ray Data in turns")
            turns = [
                (_through_ray(recipe, f"{folder}/{source}", size, folder), bare(f"{folder}/{source}", models, THREADS))
                for _ in range(3)
            ]
            ours, theirs = (Times(rounds=side) for side in zip(*turns, strict=True))
            told = f"{name}: seconds per 1,000, limit: bare transformers loop"
            rows.append(timed(told, ours, theirs, AIM, physical=True))
            rows.append(Row(f"{name} per second through Ray Data", 1000 / ours.median, "1/s"))
        rows += _memory(folder, images, say)
    return rows


def _through_ray(recipe: Recipe, source: str, size: int, folder: str) -> float:
    """Return the seconds per 1,000 rows from the start of the first shard to the end of the last."""
    table = _items(source, text=recipe.image is None)
    tasks = [
        EncodeTask(shard, table, folder, f"encoded/{time.time_ns()}-{n}.parquet", "benchmark")
        for n, shard in enumerate(pieces(table.table, size))
    ]
    found = OnRay().map_actors(TimedEncoders(recipe), tasks, "encode", Actors(1, THREADS))
    seconds = max(end_s for _, _, end_s in found) - min(start_s for _, start_s, _ in found)
    return 1000 * seconds / sum(part.rows for part, _, _ in found)


def _items(source: str, *, text: bool) -> EntityTable:
    """Return generated food as a table of texts, or of pictures."""
    table = ForeignTable((source,))
    return EntityTable(table=table, id="item", text=("text",) if text else (), image=None if text else "image")


def _memory(folder: str, images: int, say: Callable[[str], None]) -> list[Row]:
    """Return the peak memory over all processes for a tenth of the pictures and for all."""
    _write(f"{folder}/small/part.parquet", FEW, SMALL)
    recipe = Recipe(NO_TEXT, ImageEncodingConfig(encoder="raw", size=SMALL, thumbnail=0), threads=THREADS)
    table = _items(f"{folder}/small", text=False)
    shards = pieces(table.table, SHARD)
    peaks = []
    for count in (images // 10, images):
        say(f"memory: {count:,} pictures")
        needed = -(-count // SHARD)
        # The same file again and again: what is read and decoded is what as many different files would be.
        tasks = [
            EncodeTask(shards[n % len(shards)], table, folder, f"encoded/m{count}-{n}.parquet", "")
            for n in range(needed)
        ]
        with PeakMemory() as memory:
            OnRay().map_actors(TimedEncoders(recipe), tasks, "encode", Actors(1, THREADS))
        peaks.append(memory.peak_bytes / 2**20)
    return [Row(f"peak memory with {images:,} pictures, limit: with {images // 10:,}", peaks[1], "MiB", peaks[0], 1.1)]


def _write(path: str, rows: int, size: int) -> None:
    """Write generated food with pictures of a size."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    config = FoodConfig(pairs=max(100, rows), foods=rows, picture_size=size, missing=0.0)
    with pq.ParquetWriter(path, food_rows(config, 0, 1).schema) as writer:
        for first in range(0, rows, SHARD):
            writer.write_table(food_rows(config, first, min(first + SHARD, rows)))
