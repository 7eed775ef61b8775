"""How sets are asked by request: the labels of each row whose probability reaches a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, create_model

from rec.evaluation.rows import Row, Rows
from rec.evaluation.service import PICTURE, Answer, Context, Message, Number, Service, Whole
from rec.keys import ServeConfig
from rec.systems.capabilities import SetPredictor


class Label(BaseModel):
    """One label of a set."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    label: str
    title: str | None = None
    image: str | None = Field(None, json_schema_extra=PICTURE)
    """Address of a picture, where there is one."""
    probability: float


class SetAnswer(BaseModel):
    """The labels that hold together, most probable first."""

    labels: list[Label]


class SetOptions(Message):
    """What a request for rows may say beside them."""

    threshold: Number | None = Field(None, ge=0, le=1)
    """Labels with at least this probability are chosen; left out, the one that the task is measured by."""
    most: Whole = Field(100, ge=1)
    """Labels at most."""


class SetsService(Service):
    """Answers of a set predictor."""

    row_answer = SetAnswer
    options = SetOptions

    def __init__(self, context: Context, threshold: float) -> None:
        super().__init__(context)
        self.threshold = threshold
        self.predictor = cast(SetPredictor[Any, Any], self.system)
        self.labels = context.parts.members(self.predictor.entity)
        self.rows = Rows(self.system.columns, context.parts.members)

    def limited(self, limits: ServeConfig) -> type[Message]:
        """Return `options` under a deployment's limits."""
        most: Any = (Whole, Field(min(100, limits.max_k), ge=1, le=limits.max_k, description="Labels at most."))
        return create_model("SetOptions", __base__=SetOptions, most=most)

    def answer_rows(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the labels of each row."""
        batch = self.context.batch(self.rows.stacked(rows))
        probability_BV = self.predictor.probabilities(self.module, batch).float().cpu()
        probability_BV[:, : self.labels.first] = -1.0
        order_BV = probability_BV.argsort(dim=1, descending=True, stable=True)
        answers = []
        for row, probability_V, order_V in zip(rows, probability_BV, order_BV, strict=True):
            threshold = self.threshold if row.options.threshold is None else row.options.threshold
            count = int((probability_V >= threshold).sum())
            chosen = order_V[: min(count, row.options.most)].tolist()
            answers.append({"labels": [self._label(label, float(probability_V[label])) for label in chosen]})
        return answers

    def _label(self, label: int, probability: float) -> Answer:
        shown = self.context.shown(self.labels, label)
        return {"label": self.labels.id(label), **shown, "probability": probability}
