"""The parts of a loss in words."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

WORDS = {
    "ce": "cross-entropy of what is to be found",
    "ss": "sampled softmax, what is to be found against drawn items",
    "gbce": "binary cross-entropy against drawn items, corrected for the drawing",
    "bce": "binary cross-entropy",
    "sampled": "cross-entropy of what is to be found against drawn items",
    "margin": "how little what is true stands above what is not",
    "balance*": "how unevenly the mixture is used, 1 is even",
    "router_z*": "size of the router's scores",
    "gate_entropy": "how undecided the gate is",
    "*text_*": "negative logarithm of the probability of a word",
    "word_*": "negative logarithm of the probability of a word, whatever its place",
    "*_ce": "cross-entropy",
    "kl": "divergence from the prior",
    "rating": "squared error of ratings",
    "*_l2": "squares of the vectors",
    "norm_*": "size of the vectors",
    "*contrast*": "contrast of two views of the same",
}
"""What a term is, by a glob of its name; the first that fits counts."""


def in_words(names: Sequence[str]) -> str:
    """Return what the terms of these names are, those that have words."""
    told = ((name, next((words for glob, words in WORDS.items() if fnmatchcase(name, glob)), "")) for name in names)
    return "; ".join(f"{name}: {words}{_of_layer(name)}" for name, words in told if words)


def _of_layer(name: str) -> str:
    """Return which layer a term is of, where its name has the number of one."""
    number = name.rpartition("/")[2]
    return f" (mixture layer {number})" if number.isdigit() and "/" in name else ""
