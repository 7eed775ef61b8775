"""How ratings are asked by request: one number for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from pydantic import BaseModel

from rec.evaluation.rows import RequestRow, Rows
from rec.evaluation.service import Answer, Context, Service
from rec.systems.capabilities import Rater


class RatingAnswer(BaseModel):
    """A predicted rating, within the scale of the ratings that were given."""

    rating: float


class RatingService(Service):
    """Answers of a rater."""

    row_answer = RatingAnswer

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.rater = cast(Rater[Any, Any], self.system)
        self.rows = Rows(self.system.columns, context.parts.members)

    def answer_rows(self, rows: Sequence[RequestRow]) -> list[Answer]:
        """Return the rating of each row."""
        rating_B = self.rater.ratings(self.module, self.context.batch(self.rows.stacked(rows)))
        return [{"rating": rating} for rating in rating_B.clamp(*self.rater.scale()).tolist()]
