"""How texts are asked by request: one for each row, told token by token to those who listen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from pydantic import BaseModel, Field, create_model

from rec.evaluation.rows import Row, Rows
from rec.evaluation.service import Answer, Context, Message, Number, Service, Truth, Whole
from rec.keys import ServeConfig
from rec.systems.capabilities import Decoding, Writer

DEFAULT, HOTTEST = Decoding(), 10.0


class TextAnswer(BaseModel):
    """A text."""

    text: str


class WritingOptions(Message):
    """What a request for rows may say beside them."""

    max_tokens: Whole = Field(DEFAULT.max_tokens, ge=1)
    """Tokens of a text at most."""
    temperature: Number = Field(DEFAULT.temperature, ge=0, le=HOTTEST)
    """How freely tokens are drawn; 0 takes the most probable one each time."""
    seed: Whole = Field(DEFAULT.seed, ge=0, lt=1 << 31)
    """What drawn tokens follow from."""
    stream: Truth = False
    """Whether pieces of the texts are sent as they are written, as server-sent events."""


class WritingService(Service):
    """Answers of a writer."""

    row_answer = TextAnswer
    options = WritingOptions

    def __init__(self, context: Context, decoding: Decoding) -> None:
        super().__init__(context)
        self.decoding = decoding
        self.writer = cast(Writer[Any, Any], self.system)
        self.rows = Rows(self.system.columns, context.parts.members)

    def limited(self, limits: ServeConfig) -> type[Message]:
        """Return `options` under a deployment's limits."""
        own, told = self.decoding, WritingOptions.model_fields
        most = min(own.max_tokens, limits.max_tokens)
        fields: dict[str, Any] = {
            "max_tokens": (Whole, Field(most, ge=1, le=limits.max_tokens, description=told["max_tokens"].description)),
            "temperature": (
                Number,
                Field(own.temperature, ge=0, le=HOTTEST, description=told["temperature"].description),
            ),
        }
        return create_model("WritingOptions", __base__=WritingOptions, **fields)

    def answer_rows(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the text of each row; rows that ask for other decoding are written apart."""
        alike: dict[Decoding, list[int]] = {}
        for place, row in enumerate(rows):
            asked = row.options
            decoding = Decoding(max_tokens=asked.max_tokens, temperature=asked.temperature, seed=asked.seed)
            alike.setdefault(decoding, []).append(place)
        texts = [""] * len(rows)
        for decoding, places in alike.items():
            for place, text in zip(places, self._write([rows[p] for p in places], decoding), strict=True):
                texts[place] = text
        return [{"text": text} for text in texts]

    def _write(self, rows: Sequence[Row], decoding: Decoding) -> list[str]:
        batch = self.context.batch(self.rows.stacked(rows))
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
