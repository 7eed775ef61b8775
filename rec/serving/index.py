"""Approximate search among many items: faiss proposes candidates, which are then scored exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from rec.errors import ConfigError
from rec.keys import ServeConfig
from rec.nn.retrieval import Ask, as_lists, top_among, top_items

if TYPE_CHECKING:
    from rec.serving.artifact import Artifact

FILE = "index.faiss"
ITEM = "item_ID"
TRAINED_PER_LIST = 64
SCANNED_PER_CANDIDATE = 4
"""Items in the lists that are looked through, for each candidate that is wanted."""


@dataclass(frozen=True)
class Index:
    """A faiss index over the items' vectors, by inner product."""

    faiss: Any
    vector_ID: np.ndarray
    candidates: int

    def search(self, query_BD: np.ndarray, count: int) -> np.ndarray:
        """Return `count` items per query, 0 where fewer were found, (B, count)."""
        _, item_BC = self.faiss.search(np.ascontiguousarray(query_BD, dtype=np.float32), count)
        found: np.ndarray = np.maximum(item_BC, 0)
        return found

    def predict(
        self,
        system: Any,
        module: nn.Module,
        batch: Any,
        asks: Sequence[Ask],
        histories: Sequence[np.ndarray],
    ) -> list[dict[str, Any]]:
        """Return the best items among the candidates, what was seen or excluded left out."""
        states = system.states(module, batch)
        query_BD = system.queries(module, states)
        left_out = max(len(h) + len(a.exclude) for h, a in zip(histories, asks, strict=True))
        count = min(max(self.candidates, max(a.k for a in asks)) + left_out, len(self.vector_ID) - 1)
        item_BC = torch.from_numpy(self.search(query_BD.numpy(), count))
        score_BC = system.candidate_scores(module, states, item_BC)
        if score_BC is None:
            score_BC = torch.einsum("bcd,bd->bc", torch.from_numpy(self.vector_ID)[item_BC], query_BD)
        row = np.repeat(np.arange(len(asks)), [len(h) for h in histories])
        seen = torch.from_numpy(row), torch.from_numpy(np.concatenate(histories))
        items, scores = top_among(item_BC, score_BC, asks, seen)
        return [{"items": i, "scores": s} for i, s in as_lists(items, scores, asks)]


def build_index(vector_ID: np.ndarray, serve: ServeConfig) -> Any:
    """Return a faiss index over all items but padding.

    Raises:
        ConfigError: faiss is not installed.
    """
    faiss = _faiss()
    items, width = len(vector_ID) - 1, vector_ID.shape[1]
    vectors = np.ascontiguousarray(vector_ID[1:], dtype=np.float32)
    if serve.index == "hnsw":
        graph = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = 80
        graph.hnsw.efSearch = max(128, serve.index_candidates)
    else:
        lists = max(1, min(round(4 * items**0.5), items // TRAINED_PER_LIST))
        coarse = faiss.IndexFlatIP(width)
        graph = faiss.IndexIVFFlat(coarse, width, lists, faiss.METRIC_INNER_PRODUCT)
        graph.train(vectors[np.random.default_rng(0).permutation(items)[: lists * TRAINED_PER_LIST]])
        wanted = SCANNED_PER_CANDIDATE * serve.index_candidates * lists // items
        graph.nprobe = min(lists, max(1, lists // 16, wanted))
    index = faiss.IndexIDMap2(graph)
    index.add_with_ids(vectors, np.arange(1, items + 1))
    return index


def recall(index: Index, query_BD: np.ndarray, k: int) -> float:
    """Return the share of the exact best k items that the index finds, over all queries."""
    vector_ID = torch.from_numpy(index.vector_ID)
    asks = [Ask(k)] * len(query_BD)
    empty = torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
    exact, _ = top_items(lambda items: torch.from_numpy(query_BD) @ vector_ID[items].T, len(vector_ID), asks, empty)
    found = index.search(query_BD, max(index.candidates, k))
    hits = [np.isin(e, f).sum() for e, f in zip(exact.numpy(), found, strict=True)]
    return float(sum(hits)) / exact.numel()


def agreement(exact: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> float:
    """Return the share of exact answers' items that are in other answers to the same asks."""
    pairs = [(set(one["items"]), set(other["items"])) for one, other in zip(exact, found, strict=True)]
    return sum(len(one & other) for one, other in pairs) / max(1, sum(len(one) for one, _ in pairs))


def write_index(index: Any, path: str) -> None:
    """Write a faiss index to a file."""
    _faiss().write_index(index, path)


def open_index(artifact: Artifact, system: Any) -> Index | None:
    """Return the artifact's index, memory-mapped; None where it ranks exactly."""
    path = artifact.path / FILE
    if not path.exists():
        return None
    faiss = _faiss()
    found = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    return Index(found, artifact.array(f"catalogue/{ITEM}"), artifact.config.serve.index_candidates)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError("serve.index: needs faiss; pip install faiss-cpu, or use exact") from error
    return faiss
