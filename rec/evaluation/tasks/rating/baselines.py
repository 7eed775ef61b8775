"""Mean ratings of training, by which every model is told: of all, and of each member that was rated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rec.evaluation.records import joined
from rec.evaluation.task import Batches

if TYPE_CHECKING:
    from rec.evaluation.tasks.rating.task import Rating


def measure(task: Rating, system: Any, split: str, batches: Batches) -> Mapping[str, Mapping[str, float | None]]:
    """Return the errors of every mean of training; a member that training has not seen gets the mean of all."""
    ratings, members = training(system, batches)
    if not len(ratings):
        return {}
    overall = float(ratings.mean())
    means = {name: _means(index, ratings, overall) for name, index in members.items()}
    parts: dict[str, list[Any]] = {"mean rating": []} | {f"mean rating of the {name}": [] for name in means}
    for batch in batches(split):
        flat_B = np.full(len(batch), overall)
        parts["mean rating"].append(task.record(system, batch, flat_B))
        for name, index in system.rated(batch).items():
            own_B = [means[name].get(int(member), overall) for member in index]
            parts[f"mean rating of the {name}"].append(task.record(system, batch, np.array(own_B)))
    return {name: task.metrics(joined(tables)) for name, tables in parts.items() if tables}


def training(system: Any, batches: Batches) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return all ratings of training and, by entity, whose each is, (B,) each."""
    ratings: list[np.ndarray] = []
    members: dict[str, list[np.ndarray]] = {}
    for batch in batches("train"):
        ratings.append(system.given_ratings(batch).double().cpu().numpy())
        for name, index in system.rated(batch).items():
            members.setdefault(name, []).append(index.cpu().numpy())
    joined_members = {name: np.concatenate(parts) for name, parts in members.items()}
    return np.concatenate(ratings) if ratings else np.zeros(0), joined_members


def _means(index_B: np.ndarray, rating_B: np.ndarray, overall: float) -> dict[int, float]:
    """Return the mean rating of each member; -1 stands for one that is in no table."""
    member, place_B = np.unique(index_B, return_inverse=True)
    mean = np.bincount(place_B, rating_B) / np.bincount(place_B)
    return dict(zip(member.tolist(), mean.tolist(), strict=True)) | {-1: overall}
