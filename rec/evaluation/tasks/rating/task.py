"""The rating task: the number that each example is given, beside the one that was given.

Letters: B examples, S sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import nn

from rec.data.prepared import Prepared
from rec.evaluation.bootstrap import Summed
from rec.evaluation.records import Records, column, records_of
from rec.evaluation.service import Context, Service
from rec.evaluation.task import ALONE, Batches, Groups, Measured, Names, Task, TaskRanks, Values
from rec.evaluation.tasks.config import EvaluateConfig
from rec.evaluation.tasks.ranking.members import ids_of
from rec.evaluation.tasks.rating import baselines, meanings, sections
from rec.evaluation.tasks.rating.metrics import higher_is_better, per_row
from rec.evaluation.tasks.rating.service import RatingService
from rec.evaluation.tasks.sparsity import by_sparsity, meaning_of_group
from rec.sections import Section
from rec.systems.capabilities import Rater

RATED = "rated/"
"""Start of the names of records' columns with the members that a rating is of."""
MOST_LEVELS = 10
"""Ratings of at most so many levels make groups by level."""


@dataclass(frozen=True)
class Rating(Task):
    """Prediction of ratings."""

    name: ClassVar[str] = "rating"

    headline: str = "rmse"
    shown: tuple[str, ...] = ("rmse", "mae")

    @property
    def directions(self) -> Mapping[str, bool]:
        """Both errors; lower is better."""
        return higher_is_better

    def settings(self, system: Rater[Any, Any]) -> dict[str, str]:
        """Return the scale that predictions are clipped to."""
        lowest, highest = system.scale()
        return {"predictions": f"clipped to {lowest:g} to {highest:g}"}

    def meaning(self, name: str) -> str:
        """Return in a few words what a metric, a simple answer or a group is."""
        return meanings.of(name) or meaning_of_group(name)

    def records(
        self,
        system: Rater[Any, Any],
        module: nn.Module,
        batch: Any,
        *,
        detail: EvaluateConfig | None = None,
        ranks: TaskRanks = ALONE,
    ) -> Records:
        """Return given and predicted rating, what was rated, and the errors of each example."""
        return self.record(system, batch, system.ratings(module, batch).float().cpu().numpy())

    def answers(
        self,
        system: Rater[Any, Any],
        module: nn.Module,
        batch: Any,
        names: Names,
        *,
        most: int = 10,
        records: Records | None = None,
    ) -> dict[str, Any]:
        """Return `rating`, within the scale."""
        if records is not None:
            return {"rating": column(records, "predicted")}
        predicted_B = system.ratings(module, batch).float().cpu().numpy().astype(np.float64)
        return {"rating": np.clip(predicted_B, *system.scale())}

    def record(self, system: Rater[Any, Any], batch: Any, predicted_B: np.ndarray) -> Records:
        """Return the records of a batch with these predictions, (B,)."""
        lowest, highest = system.scale()
        given_B = system.given_ratings(batch).double().cpu().numpy()
        columns: dict[str, Any] = {f"{RATED}{name}": index_B for name, index_B in system.rated(batch).items()}
        columns |= {"rating": given_B, "predicted": np.clip(predicted_B.astype(np.float64), lowest, highest)}
        errors = per_row(given_B, predicted_B, lowest=lowest, highest=highest)
        return records_of({**columns, **errors}, len(given_B))

    def values(self, records: Records) -> Values:
        """Return the absolute error of each example."""
        return {"mae": column(records, "absolute_error")}

    def sums(self, records: Records) -> Mapping[str, Summed]:
        """Return the root of the mean squared error."""
        squared_B = column(records, "squared_error")
        return {"rmse": Summed(part_BS=np.stack([squared_B, np.ones_like(squared_B)], 1), of_total=_root_of_mean)}

    def identity(self, records: Records) -> list[np.ndarray]:
        """Return what was rated, and the rating that was given."""
        return [column(records, name) for name in records.column_names if name == "rating" or name.startswith(RATED)]

    def groups(self, system: Any, data: Prepared, split: str, records: Records, config: EvaluateConfig) -> Groups:
        """Return how much the user wrote in training where the data tell it, else the level of the given rating."""
        if f"{RATED}user" in records.column_names:
            found = by_sparsity(data, column(records, f"{RATED}user"))
            if found is not None:
                return found
        level, place_B = np.unique(column(records, "rating"), return_inverse=True)
        if not 1 < len(level) <= MOST_LEVELS:
            return super().groups(system, data, split, records, config)
        return Groups(tuple(f"rated {value:g}" for value in level), place_B)

    def baselines(
        self, system: Any, data: Prepared, split: str, batches: Batches
    ) -> Mapping[str, Mapping[str, float | None]]:
        """Return what mean ratings of training reach: of all, of each rated member, and of all with biases."""
        return baselines.measure(self, system, split, batches)

    def keys(self, system: Any, data: Prepared, records: Records) -> dict[str, Any]:
        """Return the raw ids of what was rated, where the data set has a table of it."""
        return ids_of(data, records, RATED)

    def beside(self, records: Records) -> Mapping[str, np.ndarray]:
        """Return the rating that was given and the one that is predicted."""
        return {"rating": column(records, "rating"), "predicted": column(records, "predicted")}

    def sections(self, measured: Measured) -> list[Section]:
        """Return predictions by the rating that was given."""
        return sections.sections(measured)

    def service(self, context: Context) -> Service:
        """Return what answers requests."""
        return RatingService(context)


def _root_of_mean(total_S: np.ndarray) -> float | None:
    return float(np.sqrt(total_S[0] / total_S[1])) if total_S[1] else None
