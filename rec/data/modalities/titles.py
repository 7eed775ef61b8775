"""Titles and years by which the same thing is known in different files."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from rec.data.modalities.words import folded

ARTICLES = (
    "the", "a", "an", "la", "le", "les", "l'", "el", "los", "las", "il", "lo", "i", "gli", "der", "die", "das", "den",
    "un", "une", "una", "ein", "eine", "o", "os", "as", "det", "en",
)  # fmt: skip
INSIDE = re.compile(r"\(([^()]*)\)")
YEAR = re.compile(r"(?<!\d)(1[89]\d\d|20\d\d)(?!\d)")
YEAR_AT_END = re.compile(r"\((1[89]\d\d|20\d\d)\)\s*$")
ALSO = re.compile(r"^(?:a\.?\s?k\.?\s?a\.?:?|also known as|aka)\s+", re.I)
MOVED_ARTICLE = re.compile(rf"^(.*),\s*({'|'.join(map(re.escape, ARTICLES))})$")
FIRST_ARTICLE = re.compile(r"^(?:the|an?)\s+(?=.)")


@dataclass(frozen=True, slots=True)
class TitleHashes:
    """What a thing may be called, as hashes of normalised titles."""

    main: int
    """Of its title, 0 where it has none."""
    others: tuple[int, ...]
    """Of its alternative titles in parentheses, and of its title without an article."""
    year: int
    """0 where it is unknown."""

    @property
    def all(self) -> tuple[int, ...]:
        """All of them, the title first."""
        return (self.main, *self.others) if self.main else ()


def names_of(title: str, year: str) -> TitleHashes:
    """Return what a title such as "City of Lost Children, The (Cité des enfants perdus, La) (1995)" stands for.

    A year in the title counts where `year` has none. Case, accents and signs make no difference; an article that stands
    behind a comma is one that stands before.
    """
    inside = YEAR_AT_END.search(title)
    year_found = YEAR.search(year) or (YEAR.search(inside[1]) if inside else None)
    rest = title[: inside.start()] if inside else title
    own = normal(INSIDE.sub(" ", rest))
    others = [normal(ALSO.sub("", part.strip())) for part in INSIDE.findall(rest)]
    if not own and others:
        own, others = others[0], others[1:]
    every = dict.fromkeys([own, *others])
    every |= dict.fromkeys(FIRST_ARTICLE.sub("", name) for name in list(every))
    hashes = [_hash(name) for name in every if name]
    main = hashes[0] if hashes else 0
    return TitleHashes(main, tuple(hashes[1:]), int(year_found[1]) if year_found else 0)


def normal(title: str) -> str:
    """Return a title in lower case with single spaces, its article at the front, without accents and signs."""
    text = re.sub(r"\s+", " ", folded(title)).strip()
    text = MOVED_ARTICLE.sub(r"\2 \1", text)
    text = text.replace("&", " and ").replace("l' ", "l'").replace("'", "")
    return re.sub(r"[\W_]+", " ", text).strip() or re.sub(r"\s+", " ", title).strip()


def spoken(title: str) -> str:
    """Return a title as it is written in a sentence: without what is in parentheses, the article at the front."""
    text = re.sub(r"\s+", " ", INSIDE.sub(" ", title)).strip()
    return re.sub(rf"^(.*),\s*({'|'.join(map(re.escape, ARTICLES))})$", r"\2 \1", text, flags=re.I)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()) or 1
