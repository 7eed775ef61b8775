"""What is told beside results, by level: errors, notes, and more with --verbose."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rec.errors import printable

CLEARED = "\r\x1b[K"
"""Takes back what stands in a terminal's line."""
QUIET, USUAL, VERBOSE = logging.ERROR, logging.INFO, logging.DEBUG
"""Levels of the logger "rec": errors alone, notes and progress as well, tracebacks and what libraries log as well."""


class ForPeople(logging.Handler):
    """Prints a record, in the place of a line of progress that a terminal still shows."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it; that nobody reads it any more is the caller's to know."""
        text = printable(self.format(record))
        print(f"{CLEARED}{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def logger() -> logging.Logger:
    """Return the logger "rec", which tells people its notes where nobody has chosen another level."""
    found = logging.getLogger("rec")
    if not any(isinstance(handler, ForPeople) for handler in found.handlers):
        found.addHandler(ForPeople())
    if found.level == logging.NOTSET:
        found.setLevel(USUAL)
    return found


def say(text: str) -> None:
    """Tell people a note."""
    logger().info(text)


def notes_are_shown() -> bool:
    """Return whether people are told notes and progress."""
    return logger().isEnabledFor(USUAL)


def of_libraries() -> int:
    """Return the level from which on loggers of libraries are let through."""
    return logging.INFO if logger().isEnabledFor(VERBOSE) else logging.ERROR


@contextmanager
def at(level: int) -> Iterator[None]:
    """Tell what is of a level or above inside."""
    before = logger().level
    logger().setLevel(level)
    try:
        yield
    finally:
        logger().setLevel(before)
