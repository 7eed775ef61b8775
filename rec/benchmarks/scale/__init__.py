"""`rec benchmark scale`: what must hold for large states, large tables, many ranks and many rows, part by part."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from pathlib import Path

from rec.benchmarks.parts import chosen
from rec.benchmarks.row import Row
from rec.benchmarks.work import Say

PARTS: tuple[str, ...] = ("reading", "syncs", "saves", "entropy", "ranking", "tables")
"""Modules of this package, each with `measure(folder, say) -> list[Row]`, in the order they are run."""


def measure(folder: str, only: Collection[str], say: Say) -> list[Row]:
    """Return the rows of the parts that are asked for; each has an empty folder of its own."""
    found: list[Row] = []
    for part in chosen("scale", PARTS, only):
        say(f"scale: {part}")
        own = Path(folder, part)
        own.mkdir()
        found += import_module(f"{__name__}.{part}").measure(str(own), say)
    return found
