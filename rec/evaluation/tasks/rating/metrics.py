"""Errors of predicted ratings: per row as plain arrays, then over rows.

Letters: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from rec.errors import DataError
from rec.evaluation.tasks.values import MetricValue, mean
from rec.sections import counted

higher_is_better: Mapping[str, bool] = {"rmse": False, "mae": False}


def per_row(true_N: np.ndarray, predicted_N: np.ndarray, *, lowest: float, highest: float) -> dict[str, np.ndarray]:
    """Return squared_error and absolute_error of each row, float64 (N,) each, predictions clipped to the scale first.

    `lowest` and `highest` are the smallest and the largest rating of the whole corpus (training, validation and test).
    True 5, 2 and predicted 5.6, 3.5 on a scale of 1 to 5: squared errors 0 and 2.25, absolute errors 0 and 1.5.

    Raises: DataError where a prediction is not a finite number or a true rating lies outside the scale.
    Source: PETER (Li et al., 2021), which clips in the same way.
    """
    if len(true_N) != len(predicted_N):
        raise DataError(f"rating: found {counted(len(predicted_N), 'prediction')}, expected {len(true_N)}, one per row")
    _check(predicted_N, np.isfinite(predicted_N), "predicted rating", "a finite number")
    _check(true_N, (true_N >= lowest) & (true_N <= highest), "rating", f"a number from {lowest} to {highest}")
    error_N = np.clip(predicted_N.astype(np.float64), lowest, highest) - true_N
    return {"squared_error": error_N**2, "absolute_error": np.abs(error_N)}


def summary(column: Mapping[str, np.ndarray], weight_N: np.ndarray | None = None) -> dict[str, MetricValue]:
    """Return rmse and mae over the rows of `per_row`; a weight says how often a row counts.

    Squared errors 0 and 2.25 give rmse = sqrt(2.25 / 2), absolute errors 0 and 1.5 give mae = 0.75.
    """
    squared = mean(column["squared_error"], weight_N, of="rows")
    rmse = squared if squared.value is None else replace(squared, value=squared.value**0.5)
    return {"rmse": rmse, "mae": mean(column["absolute_error"], weight_N, of="rows")}


def _check(value_N: np.ndarray, good_N: np.ndarray, what: str, expected: str) -> None:
    bad = np.flatnonzero(~good_N)
    if len(bad):
        raise DataError(f"{what}: row {bad[0]}: found {value_N[bad[0]]}, expected {expected}")
