"""K short texts per item, by a deterministic template over whatever metadata is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

SPEECH = re.compile(r"\b(say|said|tell|told|ask|talk|speak|call|claim|argue|reveal|promise|confess|lie|announce)", re.I)
PLACE = re.compile(
    r"\b(city|town|village|house|home|school|island|war|ship|space|planet|castle|prison|hotel|farm|street|desert|"
    r"forest|mountain|hospital|apartment|country|world|new york|los angeles|london|paris)",
    re.I,
)
PACES = {
    "Action": "fast", "Adventure": "brisk", "Thriller": "tense", "Horror": "tense", "Drama": "slow",
    "Romance": "gentle", "Comedy": "light", "Documentary": "measured", "Film-Noir": "brooding", "Animation": "lively",
    "War": "heavy",
}  # fmt: skip


def write_texts(film: Mapping[str, str], modalities: tuple[str, ...]) -> list[str]:
    """Return one text per modality for one item's metadata (every field present, "" where unknown).

    The sources of each text follow MSMRec's specification, section 3; a field that is missing is left out, and a text
    of which nothing is known is "": none is made up.
    """
    return [_clean(TEMPLATES[name](film)) for name in modalities]


def _sentences(plot: str, pattern: re.Pattern[str]) -> str:
    return " ".join(s for s in re.split(r"(?<=[.!?])\s+", plot) if pattern.search(s))


def _narrative(film: Mapping[str, str]) -> str:
    return film["plot"] or f"{film['title']} {film['genres']}"


def _dialogue(film: Mapping[str, str]) -> str:
    return f"{film['writers']} {film['genres']} {_sentences(film['plot'], SPEECH)}"


def _visual(film: Mapping[str, str]) -> str:
    return f"{film['genres']} {_decade(film)} {film['country']}"


def _set(film: Mapping[str, str]) -> str:
    return f"{_sentences(film['plot'], PLACE)} {film['genres']} {_decade(film)}"


def _audio(film: Mapping[str, str]) -> str:
    musical, known = "musical songs score" if "Music" in film["genres"] else "score", film["genres"] + _decade(film)
    return f"{musical} {film['genres']} {_decade(film)}" if known.strip() else ""


def _pace(film: Mapping[str, str]) -> str:
    words = [word for genre, word in PACES.items() if genre in film["genres"]]
    return f"{' '.join(words)} {film['genres']} {film['runtime']}"


def _direction(film: Mapping[str, str]) -> str:
    return f"{film['directors']} {film['year']}"


def _acting(film: Mapping[str, str]) -> str:
    return film["actors"]


def _poster(film: Mapping[str, str]) -> str:
    # The address of a poster names no visible thing; title words and rating are what its print shows.
    return f"{film['title']} {film['rated']} {film['genres']}"


def _decade(film: Mapping[str, str]) -> str:
    return f"{film['year'][:3]}0s {film['year']}" if len(film["year"]) == 4 else ""


def _clean(text: str) -> str:
    return " ".join(text.split())


TEMPLATES: dict[str, Callable[[Mapping[str, str]], str]] = {
    "narrative": _narrative,
    "dialogue": _dialogue,
    "visual": _visual,
    "set": _set,
    "audio": _audio,
    "pace": _pace,
    "direction": _direction,
    "acting": _acting,
    "poster": _poster,
}
