"""What of filed numbers and sections a page shows: nothing that is so by arithmetic, and nothing twice."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rec.sections import Bars, Heatmap, Part, Section, Table

CUT = re.compile(r"@(\d+)$")
LOWER, JOINED, GROUPS = " (lower is better)", " = ", "Groups"
ALIKE = 1e-4
"""Shares that differ by less are drawn in the same colours."""
Numbers = Mapping[str, Any]


def of_all_candidates(names: Sequence[str], candidates: int | None) -> set[str]:
    """Return the metrics whose places hold every candidate, so that whatever is to be found is among them."""
    cuts = {name: int(found[1]) for name in names if (found := CUT.search(name))}
    return {name for name, cut in cuts.items() if candidates is not None and cut >= candidates}


def without_metrics(numbers: Numbers, dropped: Collection[str]) -> dict[str, Any]:
    """Return the numbers of a run without some metrics; all of them where nothing else would tell most."""
    shown = [name for name in numbers["shown"] if name not in dropped]
    if not shown:
        return dict(numbers)
    metrics = {name: value for name, value in numbers["metrics"].items() if name not in dropped}
    return {**numbers, "shown": shown, "metrics": metrics}


def selected(sections: Sequence[Section], dropped: Collection[str]) -> list[Section]:
    """Return sections without some metrics, without groups where there is one alone, and with every map once."""
    found: list[Section] = []
    maps: list[Heatmap] = []
    for section in sections:
        if _is_one_group(section):
            continue
        parts = [_without(part, dropped) for part in section.parts if not _is_shown(part, maps)]
        maps += [part for part in parts if isinstance(part, Heatmap)]
        found.append(replace(section, parts=[part for part in parts if not _is_empty(part)]))
    return found


def _is_one_group(section: Section) -> bool:
    tables = [part for part in section.parts if isinstance(part, Table)]
    return section.title.partition(":")[0] == GROUPS and all(len(table.rows) < 2 for table in tables)


def _is_shown(part: Part, maps: Sequence[Heatmap]) -> bool:
    """Return whether a map of several rows has been shown under another title."""
    return isinstance(part, Heatmap) and len(part.matrix) > 1 and any(_same(part, other) for other in maps)


def _same(one: Heatmap, other: Heatmap) -> bool:
    a, b = (np.array(each.matrix, dtype=float) for each in (one, other))
    return a.shape == b.shape and one.x_axis == other.x_axis and np.allclose(a, b, rtol=0, atol=ALIKE, equal_nan=True)


def _is_empty(part: Part) -> bool:
    return (isinstance(part, Table) and len(part.head) < 2) or (isinstance(part, Bars) and not part.groups)


def _without(part: Part, dropped: Collection[str]) -> Part:
    if isinstance(part, Table) and dropped:
        labels = [_label(cell, dropped) for cell in part.head]
        columns = [place for place, label in enumerate(labels) if label is not None]
        told = [(row, _label(row[0], dropped)) for row in part.rows]
        rows = [[first, *(row[place] for place in columns if place)] for row, first in told if first is not None]
        return replace(part, head=[labels[place] or "" for place in columns], rows=rows)
    if isinstance(part, Bars) and dropped:
        kept = [place for place, name in enumerate(part.groups) if name not in dropped]
        if len(kept) < len(part.groups):
            return _of_groups(part, kept)
    return part


def _of_groups(part: Bars, kept: Sequence[int]) -> Bars:
    def some(values: Any) -> list[float | None] | None:
        return None if values is None else [values[place] for place in kept]

    series = [
        replace(one, values=some(one.values), low=some(one.low), high=some(one.high))  # type: ignore[arg-type]
        for one in part.series
    ]
    return replace(part, groups=[part.groups[place] for place in kept], series=series)


def _label(cell: str, dropped: Collection[str]) -> str | None:
    """Return a head without the metrics that are dropped; None where it has no other."""
    lower = LOWER if cell.endswith(LOWER) else ""
    names = cell.removesuffix(LOWER).split(JOINED)
    kept = [name for name in names if name not in dropped]
    return JOINED.join(kept) + lower if kept else None
