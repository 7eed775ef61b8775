"""Examples and labels in the space in which a model compares them, before and after training.

Letters: N examples, M labels, C width of the space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from rec.evaluation.records import ragged
from rec.evaluation.task import Measured
from rec.seeds import derive, generator

EXAMPLES, LABELS = 500, 300
"""Points at most of either kind: examples drawn at random, the labels that hold most often."""
LEAST = 5
"""Points that are worth a figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """One model's vectors."""

    example_NC: np.ndarray
    label_MC: np.ndarray
    own: float
    """Mean cosine of examples with their own labels ..."""
    others: float
    """... and with the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The same examples and labels in an untrained model and in the trained one."""

    before: Points
    after: Points

    def planes(self, seed: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Return "before" and "after" with examples (N, 2) and labels (M, 2) in a plane."""
        named = (("before", self.before), ("after", self.after))
        return [(name, *_plane(points, derive(seed, "t-sne") % (1 << 32))) for name, points in named]


def space(measured: Measured) -> Space | None:
    """Return the points of a measured split; None where the system has none, or where they are too few."""
    system, batches = measured.system, measured.batches
    if batches is None or not len(measured.records):
        return None
    chosen = np.sort(generator(measured.seed, "space").permutation(len(measured.records))[:EXAMPLES])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(measured.seed, "model"))  # as training begins
        fresh = system.model()
    device = next((tensor.device for tensor in measured.module.state_dict().values()), torch.device("cpu"))
    modules = (fresh.to(device).eval(), measured.module.eval())
    with torch.inference_mode():
        vectors = [_vectors(system, module, batches(measured.split), chosen) for module in modules]
    if vectors[0] is None or vectors[1] is None:
        return None
    label_P, example_P = ragged(measured.records, "target")
    first = measured.data.entities[system.entity].first
    count_V = np.bincount(label_P.astype(np.int64), minlength=len(vectors[0][1]))
    count_V[:first] = -1
    shown = np.sort(np.argsort(-count_V, kind="stable")[: min(LABELS, len(count_V) - first)])
    true_NV = np.zeros((len(measured.records), len(count_V)), bool)
    true_NV[example_P, label_P.astype(np.int64)] = True
    points = [_points(example, label[shown], true_NV[chosen][:, shown]) for example, label in vectors]  # type: ignore[misc]
    whole = all(np.isfinite(p.example_NC).all() and np.isfinite(p.label_MC).all() for p in points)
    return Space(before=points[0], after=points[1]) if whole and len(chosen) + len(shown) >= LEAST else None


def _vectors(system: Any, module: nn.Module, batches: Any, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the vectors of the chosen examples and of all labels."""
    kept, labels, start = [], None, 0
    for batch in batches:
        own = chosen[(chosen >= start) & (chosen < start + len(batch))] - start
        start += len(batch)
        if not len(own) and labels is not None:
            continue
        found = system.embeddings(module, batch)
        if found is None:
            return None
        labels = found[1].float().cpu().numpy()
        kept.append(found[0].float().cpu().numpy()[own])
    return None if labels is None else (np.concatenate(kept), labels)


def _points(example_NC: np.ndarray, label_MC: np.ndarray, true_NM: np.ndarray) -> Points:
    cosine_NM = _unit(example_NC) @ _unit(label_MC).T
    own = float(cosine_NM[true_NM].mean()) if true_NM.any() else float("nan")
    others = float(cosine_NM[~true_NM].mean()) if not true_NM.all() else float("nan")
    return Points(example_NC=example_NC, label_MC=label_MC, own=own, others=others)


def _unit(vector_NC: np.ndarray) -> np.ndarray:
    unit_NC: np.ndarray = vector_NC / np.maximum(np.linalg.norm(vector_NC, axis=1, keepdims=True), 1e-12)
    return unit_NC


def _plane(points: Points, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.manifold import TSNE

    both_PC = np.concatenate([points.example_NC, points.label_MC])
    if both_PC.shape[1] < 2:
        both_PC = np.pad(both_PC, ((0, 0), (0, 2 - both_PC.shape[1])))
    spread = float(both_PC.std()) or 1.0
    plane = TSNE(
        n_components=2,
        perplexity=min(30.0, (len(both_PC) - 1) / 3),
        init="pca" if np.ptp(both_PC) > 0 else "random",
        random_state=seed,
    )
    flat_P2 = plane.fit_transform((both_PC / spread).astype(np.float32))
    return flat_P2[: len(points.example_NC)], flat_P2[len(points.example_NC) :]
