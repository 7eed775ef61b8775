"""How sets are asked by request: labels that a threshold and a filter choose, and what people must know of them.

Letters: B rows, V labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, create_model

from rec.evaluation.rows import RequestRow, Rows
from rec.evaluation.service import PICTURE, Answer, Context, Message, Number, Service, Truth, Whole
from rec.evaluation.tasks.sets.filters import Filter, filtered
from rec.serving.config import ServeConfig
from rec.systems.capabilities import SetPredictor
from rec.transfer import to_host


class AnswerPart(BaseModel):
    """Base of the parts of an answer."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Label(AnswerPart):
    """One label of a set."""

    label: str
    title: str | None = None
    image: str | None = Field(None, json_schema_extra=PICTURE)
    """Address of a picture, where there is one."""
    probability: float


class Interaction(AnswerPart):
    """Two labels of a set that are known to interact badly."""

    label: str
    title: str | None = None
    other: str
    other_title: str | None = None
    severity: str | None = None
    """How bad it is, where that is known."""


class Earlier(AnswerPart):
    """An earlier example of the subject."""

    visit: int
    """Its number among those of the request, the first is 1."""
    weight: float


class Reasons(AnswerPart):
    """What weighed most in a set."""

    sections: dict[str, float] = {}
    """Weight of each part of the input."""
    earlier: list[Earlier] = []
    """Weights of earlier examples, the heaviest first."""


class SetAnswer(AnswerPart):
    """The labels that hold together, most probable first."""

    labels: list[Label]
    interactions: list[Interaction] | None = Field(None, json_schema_extra={"x-warning": True})
    """Pairs in this set that are known to interact; left out where no interactions are known at all."""
    taken_out: list[Label] = []
    """Labels that are probable enough, and were taken out as they interact with others of the set."""
    missing: list[str] = []
    """Parts of the input that were not given."""
    reasons: Reasons | None = None
    """What weighed most, where the request asks to explain."""


class SetOptions(Message):
    """What a request for rows may say beside them."""

    threshold: Number | None = Field(None, ge=0, le=1)
    """Labels with at least this probability are chosen; left out, the one that the task is measured by."""
    most: Whole = Field(100, ge=1)
    """Labels at most."""
    filter: Filter | None = None
    """How labels are taken out that interact with others of the set: not at all, those of lower probability, or as few
    and improbable ones as possible; left out, as the system does it."""
    explain: Truth = False
    """Whether to tell what weighed most, where the system can."""


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
        self.interaction_VV = self.predictor.interactions()
        self.severity = self.predictor.severities()

    def limited(self, limits: ServeConfig) -> type[Message]:
        """Return `options` under a deployment's limits."""
        most: Any = (Whole, Field(min(100, limits.max_k), ge=1, le=limits.max_k, description="Labels at most."))
        return create_model("SetOptions", __base__=SetOptions, most=most)

    def answer_rows(self, rows: Sequence[RequestRow]) -> list[Answer]:
        """Return the labels of each row, what interacts among them, what was missing, and why where that is asked."""
        batch = self.context.batch(self.rows.stacked(rows))
        (probability_BV,) = to_host([self.predictor.probabilities(self.module, batch).float()])
        probability_BV[:, : self.labels.first] = -1.0
        order_BV = probability_BV.argsort(dim=1, descending=True, stable=True).numpy()
        score_BV = probability_BV.numpy()
        least = [self.threshold if row.options.threshold is None else row.options.threshold for row in rows]
        least_B = np.array(least, np.float32)  # as scores are, so that what equals a threshold reaches it
        chosen_BV = self._chosen(score_BV, least_B[:, None], [row.options.filter for row in rows])
        explained = any(row.options.explain for row in rows)
        reasons = self.predictor.reasons(self.module, batch) if explained else []
        answers = []
        for place, row in enumerate(rows):
            ranked = order_BV[place]
            chosen = ranked[chosen_BV[place, ranked]][: row.options.most].tolist()
            left = ranked[(score_BV[place, ranked] >= least_B[place]) & ~chosen_BV[place, ranked]].tolist()
            told = dict(reasons[place]) if row.options.explain and reasons else {}
            answer: Answer = {"labels": [self._label(label, score_BV[place, label]) for label in chosen]}
            if self.interaction_VV is not None:
                answer["interactions"] = self._interactions(chosen)
                answer["taken_out"] = [self._label(v, score_BV[place, v]) for v in left[: row.options.most]]
            answer["missing"] = list(dict.fromkeys([*self._missing(row), *map(str, told.pop("missing", ()))]))
            if row.options.explain:
                answer |= (
                    {"reasons": _reasons(told)} if reasons else {"notes": [f"{self.context.name} tells no reasons"]}
                )
            answers.append(answer)
        return answers

    def _chosen(self, score_BV: np.ndarray, least_B1: np.ndarray, how: Sequence[str | None]) -> np.ndarray:
        """Return which labels each row is given, bool (B, V), each by its own threshold and filter."""
        chosen_BV = np.zeros(score_BV.shape, bool)
        for one in dict.fromkeys(how):
            own = np.array([name == one for name in how])
            if one is None:
                chosen_BV[own] = self.predictor.chosen(score_BV[own], least_B1[own])
            else:
                chosen_BV[own] = filtered(score_BV[own], least_B1[own], self.interaction_VV, one)
        return chosen_BV

    def _interactions(self, chosen: Sequence[int]) -> list[Answer]:
        """Return the pairs of a set that interact, those first whose labels are most probable."""
        assert self.interaction_VV is not None
        found = []
        for first, second in np.argwhere(np.triu(self.interaction_VV[np.ix_(chosen, chosen)], 1)):
            one, other = chosen[first], chosen[second]
            pair: Answer = {"label": self.labels.id(one), **self._titled(one, "title")}
            pair |= {"other": self.labels.id(other), **self._titled(other, "other_title")}
            severity = self.severity.get((min(one, other), max(one, other)))
            found.append(pair | ({"severity": severity} if severity else {}))
        return found

    def _titled(self, label: int, name: str) -> Answer:
        title = self.labels.title(label)
        return {} if title is None else {name: title}

    def _missing(self, row: RequestRow) -> list[str]:
        """Return which parts of the input hold nothing, in words: lists and texts; those along one axis as one."""
        found: dict[str, bool] = {}
        for column in self.rows.asked:
            if (column.shape or column.dtype == "str") and not column.asked_only:
                name = column.along or column.name
                found[name] = found.get(name, True) and _is_empty(row.values[column.name])
        return [name.replace("_", " ") for name, empty in found.items() if empty]

    def _label(self, label: int, probability: float) -> Answer:
        shown = self.context.shown(self.labels, label)
        return {"label": self.labels.id(label), **shown, "probability": float(probability)}


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list | np.ndarray):
        return all(isinstance(part, list | np.ndarray | str) and _is_empty(part) for part in value)
    return False


def _reasons(told: Mapping[str, Any]) -> Answer:
    """Return a system's reasons as an answer has them."""
    sections = {str(name): float(weight) for name, weight in told.get("sections", {}).items()}
    earlier = [{"visit": int(one["visit"]) + 1, "weight": float(one["weight"])} for one in told.get("earlier", ())]
    return {"sections": sections, "earlier": sorted(earlier, key=lambda one: -one["weight"])}
