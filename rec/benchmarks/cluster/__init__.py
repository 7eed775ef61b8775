"""`rec benchmark cluster`: what training over real Ray nodes costs, part by part; it starts its own."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module

from rec.benchmarks.cluster.bench import Bench
from rec.benchmarks.parts import chosen
from rec.benchmarks.row import Row
from rec.benchmarks.work import Say
from rec.runtime.local_links import require_possible

PARTS: tuple[str, ...] = ("scaling", "experts", "links", "submit", "streaming", "model")
"""Modules of this package, each with `measure(bench) -> list[Row]`, in the order they are run."""


def measure(folder: str, only: Collection[str], say: Say) -> list[Row]:
    """Return the rows of the parts that are asked for; what two of them measure is measured once.

    Raises:
        ConfigError: this machine or user cannot make network namespaces.
    """
    parts = chosen("cluster", PARTS, only)
    require_possible()
    bench, found = Bench(folder, say), []
    for part in parts:
        say(f"cluster: {part}")
        found += import_module(f"{__name__}.{part}").measure(bench)
    return found
