"""How texts are asked by request: one for each row, told token by token to those who listen."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from rec.evaluation.rows import RequestRow, Rows
from rec.evaluation.service import ASKED, MORE, Answer, Context, Message, Number, Service, Truth, Whole
from rec.evaluation.tasks.writing_config import HOTTEST, MOST_BEAMS, MOST_PENALTY, SEEDS
from rec.serving.config import ServeConfig
from rec.systems.capabilities import Decoding, Rater, Writer

DEFAULT = Decoding()


class TextToken(BaseModel):
    """A token of a text."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    text: str
    experts: dict[str, dict[str, float]] = {}
    """By mixture layer, the experts that the token was written by, with their weights."""


class TextAnswer(BaseModel):
    """A text."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    text: str
    rating: float | None = None
    """The rating that goes with it."""
    gate: str | None = None
    """What decided which experts are asked."""
    tokens: list[TextToken] | None = Field(None, json_schema_extra={"x-tokens": True})
    """The text as the model reads it, token by token."""


class WritingOptions(Message):
    """What a request for rows may say beside them."""

    max_tokens: Whole = Field(DEFAULT.max_tokens, ge=1)
    """Tokens of a text at most."""
    temperature: Number = Field(DEFAULT.temperature, ge=0, le=HOTTEST)
    """How freely tokens are drawn; 0 takes the most probable one each time."""
    top_p: Number = Field(DEFAULT.top_p, gt=0, le=1, json_schema_extra=MORE)
    """Tokens are drawn from the fewest that hold this share of the probability."""
    beams: Whole = Field(DEFAULT.beams, ge=1, le=MOST_BEAMS, json_schema_extra=MORE)
    """Texts that are followed at once in search of the best one; only at temperature 0."""
    length_penalty: Number = Field(DEFAULT.length_penalty, ge=-MOST_PENALTY, le=MOST_PENALTY, json_schema_extra=MORE)
    """The best text of several beams has the highest log probability over its number of tokens to this power."""
    seed: Whole = Field(DEFAULT.seed, ge=0, lt=SEEDS, json_schema_extra=MORE)
    """What drawn tokens follow from."""
    stream: Truth = False
    """Whether pieces of the texts are sent as they are written, as server-sent events."""
    explain: Truth = Field(False, json_schema_extra=ASKED)
    """Whether to tell the rating, and the gate and experts of each token, where the system can."""

    @model_validator(mode="after")
    def _either_drawn_or_searched(self) -> WritingOptions:
        if self.beams > 1 and self.temperature > 0:
            words = "a search with several beams draws nothing at random: expected a temperature of 0 or 1 beam"
            raise PydanticCustomError("decoding", words)
        return self


class WritingService(Service):
    """Answers of a writer."""

    row_answer = TextAnswer
    options = WritingOptions

    def __init__(self, context: Context, decoding: Decoding) -> None:
        super().__init__(context)
        self.decoding = decoding
        self.writer = cast(Writer[Any, Any], self.system)
        self.rows = Rows(self.system.columns, context.parts.members)
        ways = set(Writer.ways) - set(self.writer.ways)
        tells = isinstance(self.system, Rater) or type(self.writer).trace is not Writer.trace
        self.left_out = ways | (set() if tells else {"explain"})
        """Options that this writer knows nothing of."""

    def limited(self, limits: ServeConfig) -> type[Message]:
        """Return `options` under a deployment's limits."""
        own, told = self.decoding, WritingOptions.model_fields
        most, words = min(own.max_tokens, limits.max_tokens), told["max_tokens"].description
        fields: dict[str, Any] = {"max_tokens": (Whole, Field(most, ge=1, le=limits.max_tokens, description=words))}
        for name, field in told.items():
            if name in self.left_out or name in fields:
                continue
            fields[name] = (field.annotation, _with_default(field, getattr(own, name, field.default)))
        base = Message if self.left_out & {"temperature", "beams"} else WritingOptions
        return create_model("WritingOptions", __base__=base, **fields)

    def answer_rows(self, rows: Sequence[RequestRow]) -> list[Answer]:
        """Return the text of each row; rows that ask for other decoding are written apart."""
        alike: dict[tuple[Decoding, bool], list[int]] = {}
        for place, row in enumerate(rows):
            asked = {name: value for name, value in dict(row.options).items() if name not in ("stream", "explain")}
            explained = "explain" in type(row.options).model_fields and row.options.explain
            alike.setdefault((Decoding(**asked), explained), []).append(place)
        answers: list[Answer] = [{} for _ in rows]
        for (decoding, explained), places in alike.items():
            own = [rows[place] for place in places]
            batch = self.context.batch(self.rows.stacked(own))
            texts = self._write(own, batch, decoding)
            told = self._explained(batch, texts) if explained else [{} for _ in texts]
            for place, text, more in zip(places, texts, told, strict=True):
                answers[place] = {"text": text, **more}
        return answers

    def _explained(self, batch: Any, texts: Sequence[str]) -> list[Answer]:
        """Return what is told of each text beside it."""
        found: list[Answer] = [{} for _ in texts]
        if isinstance(self.system, Rater):
            rating_B = self.system.ratings(self.module, batch).clamp(*self.system.scale())
            for answer, rating in zip(found, rating_B.tolist(), strict=True):
                answer["rating"] = rating
        for answer, traced in zip(found, self.writer.trace(self.module, batch, texts), strict=False):
            if traced.gate:
                answer["gate"] = traced.gate
            answer["tokens"] = [
                {
                    "text": token.text,
                    "experts": {
                        layer: {str(expert): float(weight) for expert, weight in experts.items()}
                        for layer, experts in token.experts.items()
                    },
                }
                for token in traced.tokens
            ]
        return found

    def _write(self, rows: Sequence[RequestRow], batch: Any, decoding: Decoding) -> list[str]:
        gone, said = [False] * len(rows), [0] * len(rows)

        def tell(pieces: Sequence[str]) -> None:
            for place, (row, piece) in enumerate(zip(rows, pieces, strict=True)):
                if row.heard is None:
                    continue
                new = piece[max(0, row.told - said[place]) :]
                said[place] += len(piece)
                row.told = max(row.told, said[place])
                gone[place] = not row.heard(new)

        listened = any(row.heard is not None for row in rows)
        return self.writer.write(
            self.module,
            batch,
            decoding,
            all_done=lambda done: done or all(gone),
            heard=tell if listened else None,
        )


def _with_default(field: FieldInfo, default: Any) -> FieldInfo:
    """Return a copy of a field with another default."""
    made = copy(field)
    made.default = default
    return made
