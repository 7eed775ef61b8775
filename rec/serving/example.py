"""The example request of an artifact: how it is made, and whether it still gets the answer that was exported."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rec.batch import Columns
from rec.evaluation.rows import empty
from rec.sections import counted
from rec.serving.answers import Answerer

TOLERANCE = 1e-3
"""Largest difference of numbers between machines, relative or absolute."""


def make_example(answerer: Answerer, columns: Columns) -> dict[str, Any]:
    """Return an example request with its path and answer: a task's own, else a row of the system's columns.

    Args:
        answerer: What is exported.
        columns: A row of the test split.
    """
    row = answerer.rows.told(columns, answerer.config.serve)
    own = (service.example() for service in answerer.services.values())
    path, request = next((found for found in own if found is not None), ("predict", {"rows": [row]}))
    return {"path": f"/v1/{path}", "request": request, "answer": answerer.respond(path, request), "row": row}


def invented_row(answerer: Answerer) -> Columns:
    """Return a row that is of nobody: of every list of members the first two of all, and nothing else."""
    found = {column.name: empty(column, 1) for column in answerer.rows.columns}
    for column in answerer.rows.asked:
        if column.entity and column.shape == (-1,) and not column.along:
            members = answerer.rows.members[column.entity]
            found[column.name] = [np.arange(members.first, members.first + min(2, len(members)))]
    return found


def differs(answerer: Answerer) -> str:
    """Return how the example's answer differs from the exported one, empty where it does not."""
    example = answerer.example
    found = answerer.respond(example["path"].removeprefix("/v1/"), example["request"])
    return difference(example["answer"], found, "answer")


def difference(wanted: Any, found: Any, at: str) -> str:
    """Return how plain values differ, empty where they do not; numbers may by `TOLERANCE`."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        if wanted.keys() != found.keys():
            return f"{at}: has {', '.join(map(str, found))}, expected {', '.join(map(str, wanted))}"
        return next((d for key in wanted if (d := difference(wanted[key], found[key], f"{at}.{key}"))), "")
    if isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            return f"{at}: has {counted(len(found), 'entry')}, expected {len(wanted)}"
        pairs = enumerate(zip(wanted, found, strict=True))
        return next((d for n, (a, b) in pairs if (d := difference(a, b, f"{at}[{n}]"))), "")
    if isinstance(wanted, float) and isinstance(found, int | float):
        close = math.isclose(wanted, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        return "" if close else f"{at}: {found:.6g}, expected {wanted:.6g}"
    return "" if wanted == found else f"{at}: {found!r}, expected {wanted!r}"
