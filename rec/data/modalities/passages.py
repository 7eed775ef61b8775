"""What is said of an item elsewhere: passages of knowledge files, and those found for one item."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Facts = Mapping[str, str]
"""What an item's own table says of it: `title`, `year`, `genres`, `plot` and so on, "" where it is unknown."""
Match = Literal["title and year", "title", "ambiguous title", "words"]
"""Why a passage is taken for one of an item: it has its title and its year, its title, its title as have things of
other years while the item's own year is unknown, or its words."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a knowledge file."""

    id: str
    """Hash of what it says: the same text of the same title and year has the same id wherever it stands."""
    source: str
    """File and row (from 1) or paragraph that it stands in, such as "films.csv:12"."""
    title: str
    """Of what it is about, "" where its file does not say."""
    year: str
    """Four digits, or ""."""
    text: str


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A passage that was found for an item."""

    passage: Passage
    score: float
    """Higher is better; comparable among the passages of one item."""
    match: Match


def passage_id(title: str, year: str, text: str) -> str:
    """Return the id of a passage, 16 hexadecimal digits."""
    return hashlib.blake2b("\0".join((title, year, text)).encode("utf-8", "replace"), digest_size=8).hexdigest()
