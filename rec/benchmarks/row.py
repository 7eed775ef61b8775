"""One measured value beside its limit."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from rec.benchmarks.timing import Times
from rec.report.text import paragraph, table
from rec.sections import counted

POSSIBLE = 0.9
"""Least ratio to a physical limit that noise explains: rounds in turns on a quiet machine stay above it."""
MEANING = (
    "A ratio is value / limit; a goal is the most that it may be, or that the value may be where there is no limit. "
    "Load is how many processes ran or waited in the last minute; on a quiet machine it is at most the number of CPUs."
)
IMPOSSIBLE = (
    "Not judged: the limit is a part of the very work that is measured, so its ratio cannot lie below 1. The machine "
    "was busier for the limit than for the value; measure again on a quiet one."
)
NOT_JUDGED = "not judged (below the limit)"


def load_now() -> float:
    """Return how many processes ran or waited for a CPU in the last minute, in the mean; our own are among them."""
    return os.getloadavg()[0]


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement: `ratio` is value / limit, and `goal` what it may be at most (or what value may be at most).

    A limit is physical where it does a part of the very work that is measured, so that no ratio lies below 1; one that
    clearly does says that the machine was busier for the limit than for the value, and is not judged.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    goal: float | None = None
    physical: bool = field(default=False, kw_only=True)
    limit_spread: tuple[float, float] | None = field(default=None, kw_only=True)
    """The limit's lowest and highest round, in `unit`."""
    load: float = field(default_factory=load_now, kw_only=True)
    """The machine's load when the row was made."""

    @property
    def ratio(self) -> float | None:
        """Return value / limit."""
        return None if self.limit is None else self.value / self.limit

    @property
    def impossible(self) -> bool:
        """Return whether the ratio lies clearly below a physical limit."""
        return self.physical and self.ratio is not None and self.ratio < POSSIBLE

    @property
    def met(self) -> bool | None:
        """Return whether the goal is met, None without one or where the ratio cannot be."""
        found = self.value if self.ratio is None else self.ratio
        return None if self.goal is None or self.impossible else found <= self.goal

    @property
    def verdict(self) -> str:
        """Return `met` in words."""
        return NOT_JUDGED if self.impossible else {True: "yes", False: "no", None: ""}[self.met]

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain values."""
        return asdict(self) | {"ratio": self.ratio, "met": self.met, "verdict": self.verdict}


def timed(name: str, value: Times, limit: Times, goal: float | None = None, *, physical: bool = False) -> Row:
    """Return the row of two actions' median times in seconds, with the spread of the limit's rounds."""
    spread = min(limit.rounds), max(limit.rounds)
    return Row(name, value.median, "s", limit.median, goal, physical=physical, limit_spread=spread)


def show(rows: list[Row], load_before: float | None = None) -> str:
    """Return the rows as a table under a line on machine, its load before the benchmark, and versions."""
    lines = [
        [
            row.name,
            f"{row.value:.4g}",
            row.unit,
            "" if row.limit is None else f"{row.limit:.4g}",
            "" if row.limit_spread is None else "{:.3g} to {:.3g}".format(*row.limit_spread),
            f"{row.load:.1f}",
            "" if row.ratio is None else f"{row.ratio:.3f}",
            "" if row.goal is None else f"{row.goal:g}",
            row.verdict,
        ]
        for row in rows
    ]
    head = ["name", "value", "unit", "limit", "limit's rounds", "load", "ratio", "goal", "met"]
    before = "" if load_before is None else f", load {load_before:.1f} before"
    told = [paragraph(machine() + before), table(head, lines), paragraph(MEANING)]
    return "\n".join([*told, *([paragraph(IMPOSSIBLE)] if any(row.impossible for row in rows) else [])])


def machine() -> str:
    """Return what was measured on."""
    return (
        f"{platform.processor() or platform.machine()}, {counted(os.cpu_count() or 1, 'CPU')}, "
        f"{counted(torch.get_num_threads(), 'torch thread')}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
