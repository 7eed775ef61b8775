"""Speed and memory of preparing generated interactions with Ray Data, and of writing texts' vectors."""

from __future__ import annotations

import time

import numpy as np
import torch

from rec.benchmarks.memory import PeakMemory
from rec.benchmarks.row import Row
from rec.benchmarks.work import CATALOGUE, Say
from rec.data.config import DataConfig, SplitConfig
from rec.data.encoders import Tfidf
from rec.data.generated.catalogue import CatalogueConfig
from rec.runtime.prepare import prepare
from rec.seeds import generator

KINDS = (("sequences", "leave-one-out"), ("graph", "mmrec"), ("pairs", "ratio"))
"""Views, and the split that each is used with."""
TEXTS, WORDS, VOCABULARY, WIDTH = 87_516, 24, 30_000, 128
"""Nine texts of each of 9,724 films."""


def measure(interactions: int, folder: str, say: Say) -> list[Row]:
    """Return, for every view, the peak memory of all processes and how many interactions are prepared per second."""
    planted = CatalogueConfig(interactions=interactions, modalities=("a", "b"), shards=max(8, interactions // 500_000))
    rows = []
    for view, protocol in KINDS:
        split = SplitConfig.model_validate({"protocol": protocol})
        config = DataConfig(root=f"{folder}/{view}", source=CATALOGUE, read=planted, split=split)
        start_s = time.monotonic()
        with PeakMemory() as memory:
            data = prepare(config, say, [view])
        seconds = time.monotonic() - start_s
        kept = int(data.manifest["counts"]["interactions"])
        peak = memory.peak_bytes / 2**30
        rows.append(Row(f"{view}: resident memory of all processes, {kept:,} interactions", peak, "GiB", goal=4.0))
        rows.append(Row(f"{view}: seconds of generating and preparing them", seconds, "s"))
    torch.set_num_threads(2)
    return [*rows, texts()]


def texts() -> Row:
    """Return the processor's time for the vectors of texts, beside scikit-learn's own for the same."""
    from sklearn.decomposition import TruncatedSVD

    rng = generator(0, "benchmark texts")
    words = np.array([f"word{number}" for number in range(VOCABULARY)])
    drawn = np.minimum(rng.zipf(1.3, (TEXTS, WORDS)), VOCABULARY) - 1
    written = [" ".join(row) for row in words[drawn]]
    start_s = time.process_time()
    tfidf, _ = Tfidf.learned(written, WIDTH)
    ours_s = time.process_time() - start_s
    vectorizer = tfidf.vectorizer.__class__(**tfidf.vectorizer.get_params())
    start_s = time.process_time()
    TruncatedSVD(WIDTH, random_state=0).fit_transform(vectorizer.fit_transform(written))
    bare_s = time.process_time() - start_s
    return Row(
        f"{TEXTS:,} texts by TF-IDF, CPU seconds, limit: scikit-learn alone", ours_s, "s", limit=bare_s, goal=1.2
    )
