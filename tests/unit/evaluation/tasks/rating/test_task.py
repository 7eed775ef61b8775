"""The rating task: errors, what was rated, means of training beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.evaluation.bootstrap import summed_interval
from rec.evaluation.records import joined
from rec.evaluation.tasks.rating import Rating
from rec.evaluation.tasks.rating.baselines import BIASES, biases_of
from rec.systems.capabilities import Rater

TASK = Rating()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated(Batch):
    user_B: Tensor
    given_B: Tensor
    predicted_B: Tensor

    def __len__(self) -> int:
        return len(self.user_B)


class Told(Rater[Rated, nn.Module]):
    """Predicts the ratings that a batch holds."""

    def ratings(self, module: nn.Module, batch: Rated) -> Tensor:
        return batch.predicted_B

    def given_ratings(self, batch: Rated) -> Tensor:
        return batch.given_B

    def scale(self) -> tuple[float, float]:
        return 1.0, 5.0

    def rated(self, batch: Rated) -> Mapping[str, Tensor]:
        return {"user": batch.user_B}


def rated(user: list[int], given: list[float], predicted: list[float]) -> Rated:
    return Rated(user_B=torch.tensor(user), given_B=torch.tensor(given), predicted_B=torch.tensor(predicted))


BATCH = rated([0, 1, 9], [5.0, 2.0, 1.0], [5.6, 3.5, 1.0])
"""Squared errors 0 (clipped to 5), 2.25, 0."""


def test_errors_are_those_of_clipped_predictions() -> None:
    assert TASK.metrics(TASK.records(Told(), nn.Identity(), BATCH)) == {
        "rmse": pytest.approx(math.sqrt(2.25 / 3)),
        "mae": pytest.approx(0.5),
    }


def test_nothing_rated_has_no_error() -> None:
    empty = TASK.records(Told(), nn.Identity(), BATCH).slice(0, 0)
    assert TASK.metrics(empty) == {"rmse": None, "mae": None}


def test_records_join_and_the_root_is_taken_once() -> None:
    records = TASK.records(Told(), nn.Identity(), BATCH)
    assert TASK.metrics(joined([records.slice(0, 1), records.slice(1, 2)])) == TASK.metrics(records)


def test_lower_is_better() -> None:
    assert not any(TASK.directions.values())


def test_baselines_are_means_of_training_and_of_each_member() -> None:
    training = rated([0, 0, 1], [5.0, 4.0, 3.0], [0.0] * 3)

    def batches(split: str) -> Iterator[Rated]:
        yield training if split == "train" else BATCH

    found = TASK.baselines(Told(), None, "test", batches)  # type: ignore[arg-type]
    assert found["mean rating"]["mae"] == pytest.approx((1 + 2 + 3) / 3)
    # User 9 has rated nothing in training and gets the mean of all, 4.
    assert found["mean rating of the user"]["mae"] == pytest.approx((0.5 + 1 + 3) / 3)


def test_biases_are_damped_sums_of_what_is_left() -> None:
    rating, item, user = np.array([5.0, 3, 1]), np.array([7, 7, 2]), np.array([0, 1, -1])
    found = biases_of(rating, {"user": user, "item": item})
    item_bias = {7: 2 / (2 + 25), 2: -2 / (1 + 25)}
    assert found["item"] == pytest.approx(item_bias)
    assert found["user"] == pytest.approx({0: (2 - item_bias[7]) / 11, 1: -item_bias[7] / 11, -1: 0})
    assert biases_of(np.zeros(0), {}) == {}


def test_biases_agree_with_loops(rng: np.random.Generator) -> None:
    rating, item, user = rng.uniform(1, 5, 300), rng.integers(0, 20, 300), rng.integers(0, 30, 300)
    found = biases_of(rating, {"user": user, "item": item})
    rows = list(zip(rating, item, user, strict=True))
    mean = sum(rating) / len(rating)
    for member in range(20):
        own = [r - mean for r, i, _ in rows if i == member]
        assert found["item"][member] == pytest.approx(sum(own) / (25 + len(own)))
    for member in range(30):
        own = [r - mean - found["item"][i] for r, i, u in rows if u == member]
        assert found["user"][member] == pytest.approx(sum(own) / (10 + len(own)))


def test_the_mean_with_biases_is_a_baseline_and_strangers_get_the_mean() -> None:
    def batches(split: str) -> Iterator[Rated]:
        yield rated([0, 0, 1], [5.0, 4.0, 3.0], [0.0] * 3) if split == "train" else BATCH

    found = TASK.baselines(Told(), None, "test", batches)  # type: ignore[arg-type]
    predicted = [4 + 1 / 12, 4 - 1 / 11, 4]
    assert found[BIASES]["mae"] == pytest.approx(sum(abs(p - g) for p, g in zip(predicted, (5, 2, 1), strict=True)) / 3)
    assert TASK.settings(Told()) == {"predictions": "clipped to 1 to 5"}


def test_the_interval_of_the_root_is_that_of_resampled_rows(rng: np.random.Generator) -> None:
    error = rng.standard_normal(400)
    given = torch.full((400,), 3.0, dtype=torch.float64)
    batch = Rated(user_B=torch.arange(400), given_B=given, predicted_B=given + torch.from_numpy(error).clip(-2, 2))
    summed = TASK.sums(TASK.records(Told(), nn.Identity(), batch))["rmse"]
    found = summed_interval(summed, None, 500, np.random.default_rng(1))
    squared = error.clip(-2, 2) ** 2
    rows = np.random.default_rng(2)
    slow = [math.sqrt(squared[rows.integers(0, 400, 400)].mean()) for _ in range(500)]
    assert found is not None
    assert found.mean == pytest.approx(math.sqrt(squared.mean()))
    # Two independent sets of 500 resamples: quantiles differ by a few hundredths of their width.
    width = np.quantile(slow, 0.975) - np.quantile(slow, 0.025)
    assert found.low == pytest.approx(np.quantile(slow, 0.025), abs=0.1 * width)
    assert found.high == pytest.approx(np.quantile(slow, 0.975), abs=0.1 * width)
