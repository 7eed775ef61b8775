"""`/v1/predict`: answers of any task to rows with the system's columns, in raw ids and plain values."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue, create_model

from rec.errors import RequestError
from rec.evaluation.rows import RequestRow, Rows
from rec.evaluation.service import Answer, Answered, Id, Message, Route, Service
from rec.serving.config import ServeConfig


class PredictRoute(Route[RequestRow]):
    """Return an answer to each row with the columns that the system reads, without those that it predicts."""

    path = "predict"

    def __init__(
        self, services: Mapping[str, Service], rows: Rows, limits: ServeConfig, example: Mapping[str, Any] | None
    ) -> None:
        self.services, self.rows = services, rows
        self.options = {name: service.limited(limits) for name, service in services.items()}
        row = rows.schema(limits, Message, Id)
        shown = {} if example is None else {"examples": [[example]]}
        many = Annotated[list[row], Field(min_length=1, max_length=limits.max_batch_size, **shown)]  # type: ignore[valid-type]
        names = tuple(services)
        fields: dict[str, Any] = {"rows": (many, ...)}
        takes: Any = {"x-options": {name: list(options.model_fields) for name, options in self.options.items()}}
        told = Field(names[0], description="What is asked of the model.", json_schema_extra=takes)
        fields["task"] = (Literal[names], told)
        kinds = [kind for kind in dict.fromkeys(self.options.values()) if kind is not Message]
        bases: tuple[type[Message], ...] = (*kinds, _told_apart(self.options))
        words = "Rows with the system's columns; what it predicts is not asked for."
        self.request = create_model("PredictRequest", __base__=bases, __doc__=words, **fields)
        each = functools.reduce(operator.or_, [service.row_answer for service in services.values()])
        answers: Any = (list[each], ...)  # type: ignore[valid-type]
        self.answer = create_model("PredictAnswer", __base__=Answered, __doc__="One answer per row.", answers=answers)

    def parse(self, body: Any) -> list[RequestRow]:
        """Return the rows in indices.

        Raises:
            RequestError: the request says what the task that it asks does not take.
        """
        options = self.options[body.task]
        said = body.model_fields_set - {"rows", "task"}
        if strange := sorted(said - options.model_fields.keys()):
            known = ", ".join(options.model_fields) or "nothing beside rows"
            raise RequestError(f"{strange[0]}: the task {body.task!r} does not take it; it takes {known}")
        asked = options.model_construct(**{name: getattr(body, name) for name in options.model_fields})
        rows = [self.rows.read(row, f"row {number}: ") for number, row in enumerate(body.rows)]
        for row in rows:
            row.task, row.options = body.task, asked
        return rows

    def work(self, asked: Sequence[RequestRow]) -> list[Answer]:
        """Return the answers to rows of several requests, which may ask several tasks.

        Raises:
            RequestError: what a row holds cannot be used.
        """
        answers: list[Answer] = [{} for _ in asked]
        for task in dict.fromkeys(row.task for row in asked):
            places = [place for place, row in enumerate(asked) if row.task == task]
            rows = [asked[place] for place in places]
            for place, row, answer in zip(places, rows, self._answers(task, rows), strict=True):
                told = [f"{row.at}{note}" for note in answer.pop("notes", ())]
                answers[place] = {"notes": [*row.notes, *told], "answers": [answer]}
        return answers

    def _answers(self, task: str, rows: Sequence[RequestRow]) -> list[Answer]:
        try:
            return self.services[task].answer_rows(rows)
        except (IndexError, ValueError) as error:
            raise RequestError(f"{rows[0].at}a value is out of range: {error}") from error
        except RequestError as error:
            if len(rows) > 1:  # they are tried again in smaller batches, until the one it is about is alone
                raise
            raise RequestError(f"{rows[0].at}{str(error).removeprefix('row 0: ')}") from error

    def joined(self, answers: Sequence[Answer]) -> Answer:
        """Return the answer to a request from those to its rows."""
        notes = [note for answer in answers for note in answer["notes"]]
        return {"notes": notes, "answers": [answer["answers"][0] for answer in answers]}

    def listen(self, body: Any, asked: Sequence[RequestRow], heard: Callable[[int, str], bool]) -> bool:
        """Have pieces of the rows' texts told as they come, where the request says so."""
        if not getattr(body, "stream", False):
            return False
        for number, row in enumerate(asked):
            row.heard = functools.partial(heard, number)
        return True


def _told_apart(options: Mapping[str, type[Message]]) -> type[Message]:
    """Return a base whose schema says which task takes which options; the first task is the one that is left out."""
    every = dict.fromkeys(name for kind in options.values() for name in kind.model_fields)
    ways: list[Any] = []
    for task, kind in options.items():
        strange: dict[str, JsonValue] = {name: False for name in every if name not in kind.model_fields}
        ways.append({"properties": {"task": {"const": task}, **strange}} | ({"required": ["task"]} if ways else {}))

    class Told(Message):
        model_config = ConfigDict(json_schema_extra={"oneOf": ways} if len(ways) > 1 else {})

    return Told
