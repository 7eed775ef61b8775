"""Service: how a task is asked by request, and what it answers; the web, batching and queues are none of its matter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar
from urllib.parse import quote, urlencode

import numpy as np
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StrictBool
from pydantic_core import PydanticKnownError
from torch import nn

from rec.batch import Columns
from rec.data.ids import MAX_ID
from rec.data.members import PICTURE as PICTURE_FIELD
from rec.data.members import PICTURE_TYPE, Members
from rec.data.prepared import Prepared
from rec.evaluation.rows import RequestRow
from rec.serving.config import ServeConfig
from rec.storage import Storage

Q = TypeVar("Q")
Answer = dict[str, Any]
CACHED = 100_000
"""Members of an entity whose names and titles are kept at hand."""
_Text = Annotated[str, Field(min_length=1, max_length=MAX_ID, pattern=r"^[^\u0000]+$")]


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Id = Annotated[_Text, BeforeValidator(_text, json_schema_input_type=_Text | int)]
"""A raw id: text, or a number that stands for its digits."""


def _written(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise PydanticKnownError("int_type")
    return value


Whole = Annotated[int, BeforeValidator(_written)]
"""A whole number as JSON writes it: neither a text nor a truth stands for one."""
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A finite number as JSON writes it."""
Truth = StrictBool
Extra = dict[str, JsonValue]
PICTURE: Extra = {"contentMediaType": PICTURE_TYPE}
"""What a schema says of a field that holds the address of a picture."""
MORE: Extra = {"x-more": True}
"""What a schema says of a field that few people want."""
ASKED: Extra = {"x-asked": True}
"""What a schema says of a field that is true for people who say nothing else."""


def of(entity: str) -> Extra:
    """Return what a schema says of ids of an entity's members."""
    return {"x-entity": entity}


def hidden(is_hidden: bool) -> Extra:
    """Return what a schema says of a field that is of no use where it is hidden."""
    return {"x-hidden": True} if is_hidden else {}


class Message(BaseModel):
    """Base of every body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Answered(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    notes: list[str] = []
    """What was missing or left out, and what people must be told, in words."""


class Parts(Protocol):
    """Reads what was exported: from an artifact, or from a prepared data set where nothing was."""

    def members(self, entity: str) -> Members:
        """Return the members of an entity."""

    def array(self, name: str) -> np.ndarray:
        """Return an array that the task wrote."""

    def path(self, name: str) -> Path:
        """Return where a file lies that the task wrote."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a task's service answers from."""

    name: str
    """What the system is called in messages."""
    system: Any
    module: nn.Module
    """In eval mode, on `device`."""
    device: torch.device
    parts: Parts
    manifest: Mapping[str, Any]
    """What the task's `export` returned; empty where nothing was exported."""
    modalities: Sequence[str] = ()
    """Names of what answers tell the weights of."""
    shares: dict[str, torch.Tensor] = field(default_factory=dict)
    """Per mixture layer each expert's share of the rows of the last pass, (E,)."""
    described: dict[str, dict[int, Answer]] = field(default_factory=dict)

    def batch(self, rows: Columns) -> Any:
        """Return the batch of some rows on the device."""
        return self.system.collate(rows).to(self.device)

    def shown(self, members: Members, index: int) -> Answer:
        """Return what people are shown of a member: its title and the address of its picture, where known."""
        cache = self.described.setdefault(members.name, {})
        if (found := cache.get(index)) is None:
            if len(cache) >= CACHED:
                cache.clear()
            found = cache[index] = self._shown(members, index)
        return found

    def _shown(self, members: Members, index: int) -> Answer:
        found: Answer = {} if (title := members.title(index)) is None else {"title": title}
        if members.has_picture(index):
            # As a query: in a path, clients and proxies take ids such as "..", "a/b" or "%2F" for something else.
            own = "v1/media?" + urlencode({"entity": members.name, "id": members.id(index)}, quote_via=quote, safe="")
            found[PICTURE_FIELD] = own if members.stores_pictures else members.picture(index)
        return found


@dataclass(frozen=True, kw_only=True)
class Exporting:
    """What a task writes its parts of an artifact from."""

    system: Any
    module: nn.Module
    data: Prepared
    storage: Storage
    """The artifact's folder."""
    folder: str
    """Where in it the task's own files go, as `Parts` find them."""
    serve: ServeConfig
    say: Callable[[str], None]


class Route(ABC, Generic[Q]):
    """A way to ask: POST /v1/PATH takes `request` and gives `answer`.

    One request is parsed into one or several things to answer, which are answered together with those of others.
    """

    path: str
    """Below /v1, as "recommend"."""
    request: type[Message]
    """What a client sends, checked as it is read."""
    answer: type[Answered]
    """What a client gets."""
    about: str = ""
    """The field of a request that names a member of another route's answer, where this one tells more of it."""
    offered: bool = True
    """Whether people are told of it; one that is not answers with the reason."""

    @abstractmethod
    def parse(self, body: Any) -> list[Q]:
        """Return what a request asks.

        Raises:
            RequestError: it cannot be answered, whatever the model.
        """

    @abstractmethod
    def work(self, asked: Sequence[Q]) -> list[Answer]:
        """Return the answers to what several requests ask, in one pass of the model."""

    def joined(self, answers: Sequence[Answer]) -> Answer:
        """Return the answer to a request from those to all that it asked."""
        return answers[0]

    def shares(self, answers: Sequence[Answer]) -> dict[str, list[float]]:
        """Return named shares in some answers, to be watched over time."""
        return {}

    def listen(self, body: Any, asked: Sequence[Q], heard: Callable[[int, str], bool]) -> bool:
        """Have pieces of text told as they come, and return whether there will be any.

        Args:
            body: The request.
            asked: What it asks.
            heard: Receives which of what was asked, and the next piece; False where nobody listens any more.
        """
        return False


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """A thing to look up: GET /v1/PATH with one argument, in the path or as a query."""

    path: str
    argument: str
    summary: str
    find: Callable[[str], Any]
    """Returns plain values, the bytes of a picture, or None where there is nothing."""


class Service(ABC):
    """Answers requests of one task."""

    row_answer: type[BaseModel]
    """The answer to one row of `/v1/predict`."""
    options: ClassVar[type[Message]] = Message
    """What a request for rows may say beside them."""

    def __init__(self, context: Context) -> None:
        self.context, self.system, self.module = context, context.system, context.module

    def limited(self, limits: ServeConfig) -> type[Message]:
        """Return `options` under a deployment's limits."""
        return self.options

    @abstractmethod
    def answer_rows(self, rows: Sequence[RequestRow]) -> list[Answer]:
        """Return the answer to each row with the system's columns: `row_answer` as plain values, and `notes` where
        something is to be told of it.
        """

    def routes(self, limits: ServeConfig) -> list[Route[Any]]:
        """Return the ways to ask that the task has of its own, under a deployment's limits."""
        return []

    def lookups(self) -> list[Lookup]:
        """Return what else can be looked up."""
        return []

    def known(self, entity: str, index: int) -> list[Answer] | None:
        """Return the members that are known to belong to one, such as a user's items; None where that is not known."""
        return None

    def example(self) -> tuple[str, Answer] | None:
        """Return the path of a route of its own and a request that shows how it is asked; None where there is none."""
        return None
