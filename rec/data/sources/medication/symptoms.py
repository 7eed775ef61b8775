"""Symptoms found in texts: the terms of a list, longest first, as whole words.

The field's benchmark takes the noun phrases of discharge summaries that are terms, by a grammar over tagged words;
whole words need no tagger. Neither knows negation: "denies chest pain" has the term.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.sources.medication.gathering import codes_of, filtered
from rec.data.sources.medication.official import value_of
from rec.data.tables.files import locate
from rec.data.tables.text import lines
from rec.errors import DataError

WORD = re.compile(r"\w+")
SUMMARIES = ("discharge summary", "ds")
"""What MIMIC-III and MIMIC-IV-Note call summaries."""
WHAT = "the list of symptom terms: JSON or a term a line, such as the 887 of DrugRec (github.com/ssshddd/DrugRec, data)"


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms that are looked for in texts."""

    by_word: dict[str, tuple[str, ...]]
    """Terms by their first word, the longest first."""
    known: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    """What was found in titles, which come again and again."""

    def find(self, text: str) -> tuple[str, ...]:
        """Return the terms that a text has, in its order, each once; none lies within another."""
        text, end, found = " ".join(text.lower().split()), 0, dict[str, None]()
        for match in WORD.finditer(text):
            start = match.start()
            if start < end:
                continue
            for term in self.by_word.get(match.group(), ()):
                last = start + len(term)
                if text.startswith(term, start) and not WORD.match(text, last):
                    found[term], end = None, last
                    break
        return tuple(found)

    def find_in_title(self, text: str) -> tuple[str, ...]:
        """Return what `find` does, and remember it."""
        if text not in self.known:
            self.known[text] = self.find(text)
        return self.known[text]


@dataclass(frozen=True, slots=True)
class Notes:
    """Rows of notes as symptoms of admissions; see `rec.data.sources.medication.gathering.Extract`."""

    terms: Terms

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, Counter[str]]:
        """Return the terms in rows with `visit`, `category`, `text` and, where it is told, `error`."""
        dropped = Counter[str]()
        kind = pc.utf8_lower(pc.utf8_trim_whitespace(rows["category"]))
        rows = filtered(rows, pc.is_in(kind, pa.array(SUMMARIES)), "note of another kind", dropped)
        if "error" in rows.column_names:
            rows = filtered(rows, pc.is_null(rows["error"]), "note marked as an error", dropped)
        there = pc.and_(pc.is_valid(rows["visit"]), pc.is_valid(rows["text"]))
        rows = filtered(rows, there, "note without visit or text", dropped)
        found = [self.terms.find(text) for text in rows["text"].to_pylist()]
        row = np.repeat(np.arange(len(found)), [len(terms) for terms in found])
        place = np.concatenate([np.arange(len(terms)) for terms in found]) if found else np.zeros(0)
        chosen = rows.select(["visit", "row"]).take(pa.array(row))
        code = pa.array([term for terms in found for term in terms], pa.string())
        order = chosen["row"].to_numpy().astype(np.float64) + place / (1 << 16)
        return codes_of(chosen["visit"], code, pa.array(order), chosen["row"]), dropped


def terms_of(values: Iterable[str]) -> Terms:
    """Return the terms of a list.

    Raises:
        DataError: one does not start with a letter or digit.
    """
    by_word: dict[str, list[str]] = {}
    for term in sorted({" ".join(value.lower().split()) for value in values}, key=lambda t: (-len(t), t)):
        if (first := WORD.match(term)) is None:
            raise DataError(f"data.read.symptoms: found the term {term!r}, expected one that starts with a letter")
        by_word.setdefault(first.group(), []).append(term)
    return Terms({word: tuple(found) for word, found in by_word.items()})


def read_terms(uri: str) -> Terms:
    """Return the terms of a file: a JSON list, or one a line.

    Raises:
        DataError: the file is neither.
    """
    if not uri.lower().endswith(".json"):
        return terms_of(lines(locate(uri), "cp1252"))
    value = value_of(uri)
    if not isinstance(value, list) or not all(isinstance(term, str) for term in value):
        raise DataError(f"{uri}: found {type(value).__name__}, expected {WHAT}")
    return terms_of(value)
