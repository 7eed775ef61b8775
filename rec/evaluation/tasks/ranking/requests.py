"""What is asked of a ranking and what it answers: the models behind `/v1/recommend` and `/v1/explain`."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from rec.evaluation.rows import MAX_TEXT
from rec.evaluation.service import MORE, PICTURE, Answered, Id, Message, Number, Truth, Whole, hidden, of
from rec.serving.config import ServeConfig

LARGEST = 1 << 63
Value = (
    Truth
    | Annotated[int, Field(strict=True, ge=-LARGEST, le=LARGEST)]
    | Number
    | Annotated[str, Field(max_length=MAX_TEXT)]
)
"""A plain value of JSON, as it is written: a truth is no number here."""


class Recommended(BaseModel):
    """One item of a ranking."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    item: str
    score: float
    title: str | None = None
    image: str | None = Field(None, json_schema_extra=PICTURE)
    """Address of a picture, where the catalogue has one."""
    modalities: dict[str, float | None] | None = None
    """The weight of each modality behind the item, where the request asked to explain; null where it has none."""
    experts: list[float] | None = None
    """Each expert's share in the score, where the model routes items."""


class Withheld(BaseModel):
    """An item that would have been among the best and is never shown to this user."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    item: str
    title: str | None = None
    image: str | None = Field(None, json_schema_extra=PICTURE)
    contains: list[str]
    """What it contains of what the user must avoid."""


class Ranked(BaseModel):
    """A ranking, best first."""

    items: list[Recommended]
    withheld: list[Withheld] = []


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
    image: str | None = Field(None, json_schema_extra=PICTURE)
    score: float
    parts: dict[str, float | None]
    """What each part adds to the score; `id` is what was learned of this very item, whatever its texts and pictures.
    Null where there is no such part, as of an item without that text."""
    modalities: dict[str, float | None] | None = None
    """How much each of what the model looks at counts, in shares; null where it is not there, as a missing text."""
    experts: dict[str, list[float]] = {}
    """Per mixture layer, each expert's share of the user's rows."""
    similar: list[Recommended] = []
    """The items of the history that are nearest to this one, by cosine of their vectors."""


class Profile(Message):
    """What is told of a person who is in no table, or in the place of what the tables say."""

    text: str | None = Field(None, max_length=MAX_TEXT, examples=["A 54 year old woman: high blood pressure."])
    attributes: dict[Annotated[str, Field(max_length=256)], Value | None] = Field({}, max_length=256)


class Options(Message):
    """What a request for rows may say beside them."""

    k: Whole = Field(10, ge=1)
    """How many items."""
    explain: Truth = False
    """Whether to tell the weights behind each item."""


def options(limits: ServeConfig) -> type[Message]:
    """Return the options of rows under a deployment's limits."""
    k: Any = (Whole, Field(10, ge=1, le=limits.max_k, description="How many items."))
    return create_model("RankingOptions", __base__=Options, k=k)


def recommend_request(limits: ServeConfig, subject: str, entity: str, described: bool) -> type[Message]:
    """Return the body of `/v1/recommend`.

    Args:
        limits: The deployment's.
        subject: The entity that is recommended to.
        entity: The entity that is recommended.
        described: Whether the model reads what a request tells of a subject; fields are hidden where it does not.
    """
    many = limits.max_history
    an_item = Annotated[Id, Field(json_schema_extra=of(entity))]
    who: Any = _who(limits, subject, entity, described)

    class RecommendRequest(who):  # type: ignore[misc]
        """Who to recommend to: a known user, a history, or both, in which case the history is used; or a profile."""

        candidates: list[an_item] | None = Field(None, max_length=many, min_length=1, json_schema_extra=MORE)
        """The only items to rank; seen ones are ranked too."""
        exclude: list[an_item] = Field([], max_length=many, json_schema_extra=MORE)
        """Items to leave out."""
        k: Whole = Field(10, ge=1, le=limits.max_k)
        """How many items."""
        explain: Truth = Field(False, json_schema_extra=MORE)
        """Whether to tell the weights behind each item."""

    return RecommendRequest


def explain_request(limits: ServeConfig, subject: str, entity: str, described: bool) -> type[Message]:
    """Return the body of `/v1/explain`, as that of `/v1/recommend`."""
    who: Any = _who(limits, subject, entity, described)

    class ExplainRequest(who):  # type: ignore[misc]
        """Who would be shown an item, as for recommendations, and the item in question."""

        item: Id = Field(json_schema_extra=of(entity))

    return ExplainRequest


def _who(limits: ServeConfig, subject: str, entity: str, described: bool) -> type[Message]:
    """Return the base of requests that tell of a subject; its schema says that something must be told."""
    an_item = Annotated[Id, Field(json_schema_extra=of(entity))]
    names = ("user", "history", "profile") if described else ("user", "history")
    told: list[Any] = [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]
    no_profile: Any = {} if described else {"anyOf": [{"type": "null"}], **hidden(True)}
    no_tags: Any = {} if described else {"maxItems": 0, **hidden(True)}

    class Who(Message):
        model_config = ConfigDict(json_schema_extra={"anyOf": told})

        user: Id | None = Field(None, examples=["1"], json_schema_extra=of(subject))
        """Who is known to the model."""
        history: list[an_item] | None = Field(None, max_length=limits.max_history, examples=[["10", "25", "7"]])
        """Items in the order they were seen; takes the place of what is known of the user."""
        profile: Profile | None = Field(None, json_schema_extra=no_profile)
        """What is told of a person, in the place of what is known."""
        avoid: list[Id] = Field([], max_length=256, json_schema_extra=no_tags)
        """What no recommended item may contain, beside what is known that the user must avoid."""

    return Who
