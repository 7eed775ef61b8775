"""Values in messages: short ones in quotes, and none at all of tables that are about patients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

HIDDEN = "what is not shown, as the table may identify people"
_hides: ContextVar[bool] = ContextVar("hides", default=False)


@contextmanager
def hidden() -> Iterator[None]:
    """Let no error that is raised inside show a value of a table; files, rows and columns are named as ever."""
    token = _hides.set(True)
    try:
        yield
    finally:
        _hides.reset(token)


def unshown(rows: Iterator[T]) -> Iterator[T]:
    """Yield what a reader does, whose errors show no value."""
    while True:
        with hidden():
            found = next(rows, None)
        if found is None:
            return
        yield found


def is_hidden() -> bool:
    """Return whether values are not to be shown here."""
    return _hides.get()


def shown(value: object, most: int) -> str:
    """Return a value in quotes, cut after so many characters; not the value itself where it is `hidden`."""
    if is_hidden():
        return HIDDEN
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
