"""Mean ratings of training, by which every model is told: of all, and of each member that was rated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rec.evaluation.records import joined
from rec.evaluation.task import Batches

if TYPE_CHECKING:
    from rec.evaluation.tasks.rating.task import Rating

BIASES = "mean rating with biases"
DAMPING: Mapping[str, float] = {"item": 25.0, "user": 10.0}
"""Ratings of the mean that are added to those of a member before its bias is taken."""
DAMPED = 10.0
"""The same of other members."""


def measure(task: Rating, system: Any, split: str, batches: Batches) -> Mapping[str, Mapping[str, float | None]]:
    """Return the errors of every mean of training, and of the mean with every member's bias.

    A member that training has not seen gets the mean of all, and no bias.
    """
    ratings, members = training(system, batches)
    if not len(ratings):
        return {}
    overall = float(ratings.mean())
    means = {name: _means(index, ratings, overall) for name, index in members.items()}
    biases = biases_of(ratings, members)
    parts: dict[str, list[Any]] = {"mean rating": []} | {f"mean rating of the {name}": [] for name in means}
    parts |= {BIASES: []} if biases else {}
    for batch in batches(split):
        flat_B = np.full(len(batch), overall)
        parts["mean rating"].append(task.record(system, batch, flat_B))
        for name, index in system.rated(batch).items():
            own_B = [means[name].get(int(member), overall) for member in index]
            parts[f"mean rating of the {name}"].append(task.record(system, batch, np.array(own_B)))
            flat_B = flat_B + [biases[name].get(int(member), 0.0) for member in index]
        if biases:
            parts[BIASES].append(task.record(system, batch, flat_B))
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


def biases_of(rating_B: np.ndarray, members: Mapping[str, np.ndarray]) -> dict[str, dict[int, float]]:
    """Return the bias of each member by entity: what its ratings are above the mean and the biases before it.

    Items come first, users last; sums are divided by the count and a damping. Ratings 5 and 3 of item a, 1 of item b,
    mean 3: the bias of a is 2 / (2 + 25), that of b -2 / (1 + 25). Members of index -1 have none.

    Source: Koren and Bell, Advances in Collaborative Filtering, 2011, equations 3 and 4, with their damping.
    """
    left_B = rating_B - rating_B.mean() if len(rating_B) else rating_B
    found: dict[str, dict[int, float]] = {}
    for name in sorted(members, key=lambda name: (name == "user", name != "item")):
        member, place_B = np.unique(members[name], return_inverse=True)
        bias = np.bincount(place_B, left_B) / (np.bincount(place_B) + DAMPING.get(name, DAMPED))
        bias = np.where(member < 0, 0.0, bias)
        left_B = left_B - bias[place_B]
        found[name] = dict(zip(member.tolist(), bias.tolist(), strict=True))
    return found


def _means(index_B: np.ndarray, rating_B: np.ndarray, overall: float) -> dict[int, float]:
    """Return the mean rating of each member; -1 stands for one that is in no table."""
    member, place_B = np.unique(index_B, return_inverse=True)
    mean = np.bincount(place_B, rating_B) / np.bincount(place_B)
    return dict(zip(member.tolist(), mean.tolist(), strict=True)) | {-1: overall}
