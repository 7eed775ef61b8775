"""What clients send and get: the models behind the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from rec.keys import ServeConfig

MAX_TEXT = 100_000
Id = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\u0000]+$")]


class Message(BaseModel):
    """Base of every body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Answered(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(extra="forbid")

    notes: list[str] = []
    """What was missing or left out, in words."""


class Recommended(BaseModel):
    """One item of a ranking."""

    item: str
    score: float
    title: str | None = None
    image: str | None = None
    """Address of a picture, where the catalogue has one."""
    modalities: dict[str, float] | None = None
    """The weight of each modality behind the item, where the request asked to explain."""
    experts: list[float] | None = None
    """Each expert's share in the score, where the model routes items."""


class Withheld(BaseModel):
    """An item that would have been among the best and is never shown to this user."""

    item: str
    title: str | None = None
    image: str | None = None
    contains: list[str]
    """What it contains of what the user must avoid."""


class RecommendAnswer(Answered):
    """A ranking, best first."""

    items: list[Recommended]
    withheld: list[Withheld] = []
    source: str = "model"
    """"model", or "popularity" where nothing is known of the user."""


class ExplainAnswer(Answered):
    """Why a user would be shown an item."""

    item: str
    title: str | None = None
    image: str | None = None
    score: float
    parts: dict[str, float]
    """What the item's id and each modality add to the score."""
    modalities: dict[str, float] | None = None
    experts: dict[str, list[float]] = {}
    """Per mixture layer, each expert's share of the user's rows."""
    similar: list[Recommended] = []
    """The items of the history that are nearest to this one, by cosine of their vectors."""


class PredictAnswer(Answered):
    """One answer per row, as the system makes it."""

    answers: list[dict[str, Any]]


class Profile(Message):
    """What is told of a person who is in no table, or in the place of what the tables say."""

    text: str | None = Field(None, max_length=MAX_TEXT, examples=["A 54 year old woman: high blood pressure."])
    attributes: dict[Annotated[str, Field(max_length=256)], float | str | None] = Field({}, max_length=256)


Avoid = Annotated[list[Id], Field(max_length=256)]


def recommend_request(limits: ServeConfig) -> type[Message]:
    """Return the body of `/v1/recommend` under a deployment's limits."""
    many = limits.max_history

    class RecommendRequest(Message):
        """Who to recommend to: a known user, a history, or both, in which case the history is used; or a profile."""

        user: Id | None = Field(None, examples=["1"])
        history: list[Id] | None = Field(None, max_length=many, examples=[["10", "25", "7"]])
        """Items in the order they were seen; takes the place of what is known of the user."""
        profile: Profile | None = None
        avoid: Avoid = []
        """What no recommended item may contain, beside what is known that the user must avoid."""
        candidates: list[Id] | None = Field(None, max_length=many, min_length=1)
        """The only items to rank; seen ones are ranked too."""
        exclude: list[Id] = Field([], max_length=many)
        k: int = Field(10, ge=1, le=limits.max_k)
        explain: bool = False

    return RecommendRequest


def explain_request(limits: ServeConfig) -> type[Message]:
    """Return the body of `/v1/explain` under a deployment's limits."""

    class ExplainRequest(Message):
        """A known user or a history, and the item in question."""

        item: Id
        user: Id | None = None
        history: list[Id] | None = Field(None, max_length=limits.max_history)
        profile: Profile | None = None
        avoid: Avoid = []

    return ExplainRequest


def predict_request(limits: ServeConfig) -> type[Message]:
    """Return the body of `/v1/predict` under a deployment's limits."""

    class PredictRequest(Message):
        """Rows with the system's columns, as it was trained on them; `/v1/model` lists them."""

        rows: list[dict[str, Any]] = Field(min_length=1, max_length=limits.max_batch_size)

    return PredictRequest
