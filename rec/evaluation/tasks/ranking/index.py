"""Approximate search among many items: faiss proposes candidates, which are then scored exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from rec.data.stream import to_columns
from rec.errors import ConfigError
from rec.evaluation.service import Context, Exporting
from rec.evaluation.tasks.ranking.answers import recommend_batch
from rec.nn.retrieval import Ask, as_lists, top_among, top_items
from rec.sections import counted
from rec.serving.config import ServeConfig
from rec.systems.capabilities import Pairs, Ranker, States
from rec.transfer import sent, to_device, to_host

FILE = "index.faiss"
RECALL_K, AGREEMENT_K, RECALL_EXAMPLES = 100, 10, 500
TRAINED_PER_LIST = 64
SCANNED_PER_CANDIDATE = 4
"""Items in the lists that are looked through, for each candidate that is wanted."""


@dataclass(frozen=True)
class FaissIndex:
    """A faiss index over the items' vectors, by inner product."""

    faiss: Any
    vector_ID: torch.Tensor
    candidates: int

    def search(self, query_BD: np.ndarray, count: int) -> np.ndarray:
        """Return `count` items per query, 0 where fewer were found, (B, count)."""
        _, item_BC = self.faiss.search(np.ascontiguousarray(query_BD, dtype=np.float32), count)
        found: np.ndarray = np.maximum(item_BC, 0)
        return found

    def predict(
        self, system: Ranker[Any, Any], module: nn.Module, states: States, asks: Sequence[Ask], seen: Pairs
    ) -> list[dict[str, Any]]:
        """Return the best items among the candidates, what was seen or excluded left out."""
        query_BD = system.queries(module, states)
        seen_B = torch.bincount(seen[0], minlength=len(asks)).tolist()
        own = [max(self.candidates, a.k) + s + len(a.exclude) for s, a in zip(seen_B, asks, strict=True)]
        count = min(max(own), len(self.vector_ID) - 1)
        (near_BD,) = to_host([query_BD])
        item_BC = sent(torch.from_numpy(self.search(near_BD.numpy(), count)), query_BD.device)
        # No more than an ask alone would get, whatever is asked in its company.
        place_C = torch.arange(count, device=item_BC.device)
        item_BC = item_BC.masked_fill(place_C >= to_device(own, torch.int64, item_BC.device)[:, None], 0)
        score_BC = system.candidate_scores(module, states, item_BC)
        if score_BC is None:
            score_BC = torch.einsum("bcd,bd->bc", self.vector_ID[item_BC], query_BD)
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


def recall(index: FaissIndex, query_BD: np.ndarray, k: int) -> float:
    """Return the share of the exact best k items that the index finds, over all queries."""
    vector_ID = index.vector_ID
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


def write_index(exporting: Exporting) -> dict[str, Any]:
    """Build the index, measure it against exact search on validation, write it, and return what was measured.

    Recall is that of the index' own search; agreement is that of answers, scored by the system, with exact ones.

    Raises:
        ConfigError: the scores are no inner products, or faiss is not installed.
    """
    system, module, serve = exporting.system, exporting.module, exporting.serve
    rows = exporting.data.rows("val").slice(0, RECALL_EXAMPLES)
    with torch.inference_mode():
        batch = system.collate(to_columns(rows))
        states, known = system.states(module, batch), system.examples(batch).known
        query_BD = system.queries(module, states)
        vector_ID = system.item_vectors(module)
        built = build_index(vector_ID.numpy(), serve)
        index = FaissIndex(built, vector_ID, serve.index_candidates)
        k, top = min(RECALL_K, len(vector_ID) - 1), min(AGREEMENT_K, len(vector_ID) - 1)
        asks = [Ask(k=top)] * len(rows)
        found = recall(index, query_BD.numpy(), k)
        near = index.predict(system, module, states, asks, known)
        agreed = agreement(recommend_batch(system, module, batch, asks), near)

    def fill(stream: IO[bytes]) -> None:
        _faiss().write_index(built, _faiss().PyCallbackIOWriter(stream.write))

    exporting.storage.write_with(f"{exporting.folder}/{FILE}", fill)
    told = {"k": k, "recall": found, "top": top, "agreement": agreed, "queries": len(rows)}
    words = f"{found:.4f}, {agreed:.4f} of exact answers' best {top}; {counted(len(rows), 'query')}"
    exporting.say(f"{serve.index}: recall@{k} {words}")
    return {"kind": serve.index, "candidates": serve.index_candidates, **told}


def open_index(context: Context) -> FaissIndex | None:
    """Return the artifact's index, memory-mapped; None where it ranks exactly."""
    told = context.manifest.get("index")
    if told is None:
        return None
    faiss = _faiss()
    found = faiss.read_index(str(context.parts.path(FILE)), faiss.IO_FLAG_MMAP)
    return FaissIndex(found, context.system.item_vectors(context.module), int(told["candidates"]))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError("serve.index: needs faiss; pip install faiss-cpu, or use exact") from error
    return faiss
