"""The example request of an artifact: how it is made, and whether it still gets the answer that was exported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rec.serving.answers import Answer, Answerer

TOLERANCE = 1e-3
"""Largest difference of numbers between machines, relative or absolute."""
K = 10
RECOMMEND, PREDICT = "/v1/recommend", "/v1/predict"


def make_example(answerer: Answerer, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an example request with its path and answer: the first known user, else a row of the system's columns."""
    path = PREDICT
    request: dict[str, Any] = {"rows": [dict(row)]}
    if answerer.ranks:
        known = {"history": [answerer.item_ids.name(int(index)) for index in answerer.popular[:5]]}
        who = {"user": answerer.user_ids.name(0)} if len(answerer.user_ids) else known
        path = RECOMMEND
        request = {**who, "k": K, "explain": True}
    return {"path": path, "request": request, "answer": respond(answerer, path, request)}


def respond(answerer: Answerer, path: str, request: Mapping[str, Any]) -> Answer:
    """Return the answer to a request."""
    if path == PREDICT:
        return {"answers": answerer.predict(request["rows"])}
    return answerer.recommend([answerer.wish(**{"user": None, "history": None, **request})])[0]


def differs(answerer: Answerer) -> str:
    """Return how the example's answer differs from the exported one, empty where it does not."""
    example = answerer.artifact.example()
    return _difference(example["answer"], respond(answerer, example["path"], example["request"]), "answer")


def _difference(wanted: Any, found: Any, at: str) -> str:
    if isinstance(wanted, dict) and isinstance(found, dict):
        if wanted.keys() != found.keys():
            return f"{at}: has {', '.join(map(str, found))}, expected {', '.join(map(str, wanted))}"
        return next((d for key in wanted if (d := _difference(wanted[key], found[key], f"{at}.{key}"))), "")
    if isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            return f"{at}: has {len(found)} entries, expected {len(wanted)}"
        pairs = enumerate(zip(wanted, found, strict=True))
        return next((d for n, (a, b) in pairs if (d := _difference(a, b, f"{at}[{n}]"))), "")
    if isinstance(wanted, float) and isinstance(found, int | float):
        close = math.isclose(wanted, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        return "" if close else f"{at}: {found:.6g}, expected {wanted:.6g}"
    return "" if wanted == found else f"{at}: {found!r}, expected {wanted!r}"
