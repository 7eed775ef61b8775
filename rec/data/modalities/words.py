"""English texts as sentences, stretches of sentences, and stems of the words that say something."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterator

import Stemmer
from bm25s.stopwords import STOPWORDS_EN_PLUS

WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"'\u201d\u2019)\]]*\s+(?=[\"'\u201c\u2018(\[]*[^\W_a-z])")
SHORTENED = re.compile(r"(?:\b[A-Z]|\b(?:Mr|Mrs|Ms|Dr|St|Lt|Sgt|Capt|Col|Gen|Prof|Rev|Jr|Sr|vs|No))\.$")
"""How a piece ends whose full stop ends no sentence: an initial, a title."""
CONTRACTED = re.compile(r"(?:n't|'(?:s|ll|re|ve|d|m))$")
MOST_FORMS = 1 << 20
"""Forms of words whose stems are kept at hand."""
STOP_WORDS = frozenset(STOPWORDS_EN_PLUS)


class Words:
    """The stems of content words, as 64-bit hashes: the same everywhere, so that no vocabulary need be shared."""

    def __init__(self) -> None:
        self.stemmer = Stemmer.Stemmer("english")
        self.known: dict[str, int] = {}
        """By form as it stands in a text: its stem's hash, 0 for a word that says nothing."""

    def hash_of(self, form: str) -> int:
        """Return the hash of a word's stem, 0 where it is a stop word."""
        found = self.known.get(form)
        if found is None:
            if len(self.known) >= MOST_FORMS:
                self.known.clear()
            found = self.known[form] = self._hash(form)
        return found

    def hashes(self, text: str) -> list[int]:
        """Return the hashes of a text's content words, in its order."""
        return [h for h in map(self.hash_of, WORD.findall(text)) if h]

    def distinct(self, forms: Collection[str]) -> set[int]:
        """Return the hashes of content words among some forms."""
        found = set(map(self.known.get, forms))
        return {h for h in (map(self.hash_of, forms) if None in found else found) if h}

    def _hash(self, form: str) -> int:
        word = CONTRACTED.sub("", folded(form))
        if word in STOP_WORDS or not word:
            return 0
        stem = self.stemmer.stemWord(word).encode("utf-8", "replace")
        return int.from_bytes(hashlib.blake2b(stem, digest_size=8).digest()) or 1

    def __reduce__(self) -> tuple[type[Words], tuple[()]]:
        """Leave what is at hand behind: the library's stemmer cannot travel between processes."""
        return Words, ()


def folded(text: str) -> str:
    """Return a text in lower case, without accents."""
    text = text.lower().replace("\u2019", "'")
    if text.isascii():
        return text
    apart = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in apart if not unicodedata.combining(letter))


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; a line end is nothing but a space."""
    found: list[str] = []
    for piece in SENTENCE_END.split(text.strip()):
        if found and SHORTENED.search(found[-1]):
            found[-1] = f"{found[-1]} {piece}"
        elif piece:
            found.append(piece)
    return found


def stretches(text: str, words: int, overlap: int) -> Iterator[str]:
    """Yield a text in stretches of whole sentences of at most `words` words; longer sentences are cut.

    A stretch starts with the last sentences of the one before, as many as `overlap` words hold.
    """
    held: list[tuple[str, int]] = []
    fresh = False
    for piece, size in _pieces(text, words):
        if fresh and sum(n for _, n in held) + size > words:
            yield " ".join(part for part, _ in held)
            held, fresh = _last(held, min(overlap, words - size)), False
        held.append((piece, size))
        fresh = True
    if fresh:
        yield " ".join(part for part, _ in held)


def _pieces(text: str, most: int) -> Iterator[tuple[str, int]]:
    """Yield sentences and their numbers of words, of which none has more than `most`."""
    for sentence in sentences(text):
        parts = sentence.split()
        for at in range(0, len(parts), most):
            yield " ".join(parts[at : at + most]), len(parts[at : at + most])


def _last(held: list[tuple[str, int]], room: int) -> list[tuple[str, int]]:
    """Return the last pieces that fit into `room` words."""
    kept: list[tuple[str, int]] = []
    for piece, size in reversed(held):
        if size > room:
            break
        kept.insert(0, (piece, size))
        room -= size
    return kept
