"""The keys that say how a foreign table is written, where it cannot be told from the file."""

from __future__ import annotations

import codecs
import re
from datetime import UTC, datetime
from typing import Literal

from pydantic import field_validator

from rec.strict import Strict

ColumnType = Literal["text", "integer", "number", "boolean", "time"]
A_TIME = datetime(2031, 12, 25, 17, 46, 59, 123_456, UTC)


class TableFormat(Strict):
    """How a table is written; what is unset is told from the file."""

    delimiter: str = ""
    """What stands between values of text files, one or more characters such as ";" or "::"; "" detects it."""
    encoding: str = ""
    """Of text files; "" takes the byte order mark, else UTF-8, else cp1252 for values that are not."""
    header: tuple[str, ...] = ()
    """Names of the columns where the file's first line is a row already."""
    types: dict[str, ColumnType] = {}
    """Types of columns by name; others come from the whole column."""
    time_unit: Literal["", "s", "ms", "us", "ns"] = ""
    """Of times that are numbers; "" tells it from their size."""
    time_format: str = ""
    """Of times that are text, as `strptime` has it ("%d.%m.%Y %H:%M"), in columns of times and of the type "time"; ""
    takes numbers and dates such as 2024-01-31T12:00:00Z."""
    decimal: Literal[".", ","] = "."
    """What stands before the fraction of a number."""

    @field_validator("delimiter")
    @classmethod
    def _delimiter_can_stand_between(cls, value: str) -> str:
        if any(character in value for character in '"\r\n'):
            raise ValueError("holds a quote or a line end, expected what stands between values of a line")
        return value

    @field_validator("time_format")
    @classmethod
    def _format_tells_a_day(cls, value: str) -> str:
        """Check that a time comes back from its own text."""
        if not value:
            return value
        try:
            told = datetime.strptime(A_TIME.strftime(value), value)
        except (ValueError, re.error) as error:
            raise ValueError(f"{error}; expected a form such as '%d.%m.%Y %H:%M'") from error
        if told.date() != A_TIME.date():
            raise ValueError("tells no year, month and day; expected a form such as '%d.%m.%Y %H:%M'")
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, value: str) -> str:
        try:
            if value:
                "".encode(value)
                codecs.lookup(value)
        except LookupError as error:
            raise ValueError(f"unknown encoding {value!r}; such as utf-8, cp1252, latin-1, utf-16") from error
        return value

    @field_validator("header")
    @classmethod
    def _names_are_distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if twice := [name for name in value if value.count(name) > 1]:
            raise ValueError(f"{twice[0]!r} stands twice, expected each name once")
        return value
