"""The parts of a loss in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase


def in_words(names: Sequence[str], words: Mapping[str, str]) -> str:
    """Return what the terms of these names are, given the words of a system's `loss_terms`; those that have some."""
    told = ((name, next((text for glob, text in words.items() if fnmatchcase(name, glob)), "")) for name in names)
    return "; ".join(f"{name}: {text}{_of_layer(name)}" for name, text in told if text)


def _of_layer(name: str) -> str:
    """Return which layer a term is of, where its name has the number of one."""
    number = name.rpartition("/")[2]
    return f" (mixture layer {number})" if number.isdigit() and "/" in name else ""
