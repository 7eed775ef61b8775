"""Frozen encoders through Ray Data beside a bare loop of transformers, and memory as pictures grow in number.

The bare loop: decode with PIL, scale, normalise, one forward pass per batch, in one process with the same batch size
and threads. The encoders are a ViT and a BERT of random weights: throughput does not depend on them.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from rec.benchmarks import healthmoe
from rec.benchmarks.row import Row
from rec.data.encode import Encoders, EncodeTask, Found, Recipe
from rec.data.encoders import learn_tokenizer
from rec.data.food import food_rows
from rec.data.runner import Actors
from rec.data.sources.tables import item_shards
from rec.keys_pairs import FoodConfig, ImageConfig, PairTextConfig
from rec.runtime.cluster import runtime
from rec.runtime.memory import PeakMemory
from rec.runtime.prepare import OnRay

THREADS, BATCH, SHARD = 2, 32, 256
IMAGES, TEXTS, SIZE = 1024, 8192, 224
TEXT_SHARD = 2048
"""What a config has unless it says otherwise; pictures take so much longer that fewer of them make a shard here."""
FEW, MANY, SMALL = 10_000, 100_000, 32
NO_TEXT = PairTextConfig(tokenizer="")
AIM = 1 / 0.9


@dataclass(frozen=True, slots=True)
class TimedEncoders:
    """Makes encoders that also tell when they began and ended a shard; what came before counts as start-up."""

    recipe: Recipe

    def __call__(self) -> Callable[[EncodeTask], tuple[Found, float, float]]:
        """Return the function of one actor."""
        encoders = Encoders(self.recipe)

        def timed(task: EncodeTask) -> tuple[Found, float, float]:
            start_s = time.time()
            return encoders(task), start_s, time.time()

        return timed


def measure(folder: str, images: int, say: Callable[[str], None]) -> list[Row]:
    """Return throughput of pictures and texts through Ray Data beside the bare loop, and memory for few and many."""
    models = _models(Path(folder))
    say(f"writing {IMAGES} pictures of {SIZE} pixels and {TEXTS} texts")
    _write(f"{folder}/photos/part.parquet", IMAGES, SIZE)
    _write(f"{folder}/texts/part.parquet", TEXTS, 16)
    see = Recipe(NO_TEXT, ImageConfig(encoder=models["vit"], pixels=False, thumbnail=0), threads=THREADS)
    read = Recipe(PairTextConfig(encoder=models["bert"], tokenizer="", max_tokens=32), None, threads=THREADS)
    say("a training step beside its encoders")
    rows = healthmoe.measure(f"{folder}/food", THREADS)
    say("full rankings beside their experts' products")
    rows += healthmoe.ranking()
    torch.set_num_threads(THREADS)
    with runtime(THREADS):
        for name, recipe, source, size, bare in (
            ("pictures", see, "photos", SHARD, _bare_pictures),
            ("texts", read, "texts", TEXT_SHARD, _bare_texts),
        ):
            say(f"{name}: the bare loop and Ray Data in turns")
            turns = [
                (_through_ray(recipe, f"{folder}/{source}", size, folder), bare(f"{folder}/{source}", models))
                for _ in range(3)
            ]
            ours, theirs = (sorted(side)[1] for side in zip(*turns, strict=True))
            rows.append(Row(f"{name}: seconds per 1,000, limit: bare transformers loop", ours, "s", theirs, AIM))
            rows.append(Row(f"{name} per second through Ray Data", 1000 / ours, "1/s"))
        rows += _memory(folder, images, say)
    return rows


def _through_ray(recipe: Recipe, source: str, size: int, folder: str) -> float:
    """Return the seconds per 1,000 rows from the start of the first shard to the end of the last."""
    tasks = [
        EncodeTask(shard, "item", ("text",) if recipe.image is None else (), None if recipe.image is None else "image",
                   folder, f"encoded/{time.time_ns()}-{n}.parquet", "benchmark")
        for n, shard in enumerate(item_shards(source, size))
    ]  # fmt: skip
    found = OnRay().map_actors(TimedEncoders(recipe), tasks, "encode", Actors(1, THREADS))
    seconds = max(end_s for _, _, end_s in found) - min(start_s for _, start_s, _ in found)
    return 1000 * seconds / sum(part.rows for part, _, _ in found)


def _bare_pictures(source: str, models: dict[str, str]) -> float:
    from transformers import AutoModel

    torch.set_num_threads(THREADS)
    model: Any = AutoModel.from_pretrained(models["vit"]).eval()
    values = pq.read_table(source, columns=["image"])["image"].to_pylist()
    start_s = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(values), BATCH):
            batch = [
                Image.open(io.BytesIO(v)).convert("RGB").resize((SIZE, SIZE)) for v in values[start : start + BATCH]
            ]
            pixels = torch.from_numpy(np.stack([np.asarray(image) for image in batch])).permute(0, 3, 1, 2).float()
            model(pixel_values=pixels / 127.5 - 1).last_hidden_state[:, 0].numpy()
    return 1000 * (time.perf_counter() - start_s) / len(values)


def _bare_texts(source: str, models: dict[str, str]) -> float:
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(THREADS)
    model: Any = AutoModel.from_pretrained(models["bert"]).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(models["bert"])
    values = pq.read_table(source, columns=["text"])["text"].to_pylist()
    start_s = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(values), BATCH):
            tokens = tokenizer(
                values[start : start + BATCH], padding=True, truncation=True, max_length=32, return_tensors="pt"
            )
            model(**tokens).last_hidden_state[:, 0].numpy()
    return 1000 * (time.perf_counter() - start_s) / len(values)


def _memory(folder: str, images: int, say: Callable[[str], None]) -> list[Row]:
    """Return the peak memory over all processes for a tenth of the pictures and for all."""
    _write(f"{folder}/small/part.parquet", FEW, SMALL)
    recipe = Recipe(NO_TEXT, ImageConfig(encoder="raw", size=SMALL, thumbnail=0), threads=THREADS)
    shards = item_shards(f"{folder}/small", SHARD)
    peaks = []
    for count in (images // 10, images):
        say(f"memory: {count:,} pictures")
        needed = -(-count // SHARD)
        # The same file again and again: what is read and decoded is what as many different files would be.
        tasks = [
            EncodeTask(
                replace(shards[n % len(shards)]), "item", (), "image", folder, f"encoded/m{count}-{n}.parquet", ""
            )
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


def _models(folder: Path) -> dict[str, str]:
    """Write a ViT (4 layers of 192) and a BERT (4 layers of 256) with random weights and return their paths."""
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, ViTConfig, ViTModel

    torch.manual_seed(0)
    vit, bert = folder / "vit", folder / "bert"
    form = ViTConfig(
        hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768, image_size=SIZE
    )
    ViTModel(form, add_pooling_layer=False).save_pretrained(vit)
    texts = [
        text for text in food_rows(FoodConfig(pairs=1000, foods=512, missing=0.0), 0, 512)["text"].to_pylist() if text
    ]
    tokenizer: Any = Tokenizer.from_str(learn_tokenizer(texts, 2000))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(bert)
    size = tokenizer.get_vocab_size()
    words = BertConfig(
        vocab_size=size, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
    )
    BertModel(words, add_pooling_layer=False).save_pretrained(bert)
    return {"vit": str(vit), "bert": str(bert)}
