"""Whether what a text says is supported by what it was written from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """How far sources support a text; shares lie in [0, 1], and what has nothing to be supported is supported."""

    words: float
    """Share of its content words, by weight."""
    entities: float
    """Share of its names, years and numbers."""
    score: float
    """Both in one number, and that of the language-inference model where one is asked; what thresholds are for."""
    unsupported: tuple[str, ...] = ()
    """Words and names of no source, as they stand in the text."""
