"""Errors of ratings against arithmetic, another library and the known floor."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from rec.errors import DataError
from rec.evaluation.tasks.rating.metrics import per_row, summary


def test_predictions_are_clipped_to_the_scale_first() -> None:
    column = per_row(np.array([5, 2, 1]), np.array([5.6, 3.5, -3]), lowest=1, highest=5)
    assert column["squared_error"].tolist() == [0, 1.5**2, 0]
    assert column["absolute_error"].tolist() == [0, 1.5, 0]
    values = summary(column)
    assert values["rmse"].value == pytest.approx((1.5**2 / 3) ** 0.5)
    assert values["mae"].value == pytest.approx(1.5 / 3)
    assert values["rmse"].count == values["mae"].count == 3


def test_agrees_with_sklearn_on_clipped_predictions(rng: np.random.Generator) -> None:
    true_N, predicted_N = rng.integers(1, 6, 300), rng.normal(3, 2, 300).astype(np.float32)
    values = summary(per_row(true_N, predicted_N, lowest=1, highest=5))
    clipped_N = np.clip(predicted_N, 1, 5).astype(np.float64)
    assert values["rmse"].value == pytest.approx(root_mean_squared_error(true_N, clipped_N))
    assert values["mae"].value == pytest.approx(mean_absolute_error(true_N, clipped_N))


def test_columns_of_two_workers_concatenate(rng: np.random.Generator) -> None:
    true_N, predicted_N = rng.integers(1, 6, 30), rng.normal(3, 1, 30)
    parts = [per_row(true_N[s], predicted_N[s], lowest=1, highest=5) for s in (slice(0, 7), slice(7, None))]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert summary(joined) == summary(per_row(true_N, predicted_N, lowest=1, highest=5))


def test_a_weight_is_a_repeated_row() -> None:
    column = per_row(np.array([5, 2]), np.array([4, 4]), lowest=1, highest=5)
    values = summary(column, np.array([2.0, 1.0]))
    assert values["rmse"].value == pytest.approx(((1 + 1 + 4) / 3) ** 0.5)
    assert values["mae"].value == pytest.approx((1 + 1 + 2) / 3)


def test_wrong_numbers_are_named_with_their_row() -> None:
    with pytest.raises(DataError, match="predicted rating: row 1: found nan"):
        per_row(np.array([1, 2]), np.array([1, np.nan]), lowest=1, highest=5)
    with pytest.raises(DataError, match="rating: row 0: found 7, expected a number from 1 to 5"):
        per_row(np.array([7, 2]), np.array([1, 2]), lowest=1, highest=5)
    with pytest.raises(DataError, match="found 1 prediction, expected 2"):
        per_row(np.array([1, 2]), np.array([1.0]), lowest=1, highest=5)


@pytest.mark.data
def test_the_global_mean_of_musical_instruments_has_the_known_rmse(reviews: Path) -> None:
    folder = reviews / "nlg4rs" / "MusicalInstruments"
    rating = np.array([json.loads(line)["rating"] for line in (folder / "reviews.jsonl").read_text().splitlines()])
    train, test = (np.array((folder / "1" / f"{s}.index").read_text().split(), int) for s in ("train", "test"))
    predicted = np.full(len(test), rating[train].mean())
    column = per_row(rating[test], predicted, lowest=rating.min(), highest=rating.max())
    assert summary(column)["rmse"].value == pytest.approx(0.8572, abs=5e-5)
