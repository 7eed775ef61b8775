"""JSON that every reader takes: the one place where this package writes it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

PLAIN = json.JSONEncoder(allow_nan=False)
"""Made once: texts by the million are written with it."""


def json_text(
    value: Any, *, indent: int | None = None, sort_keys: bool = False, default: Callable[[Any], Any] | None = None
) -> str:
    """Return a value as JSON; a number that is none, as an average over nothing, or that is infinite, is null.

    JSON knows neither NaN nor Infinity, and most readers refuse a file that holds one.
    """
    try:
        if indent is None and not sort_keys and default is None:
            return PLAIN.encode(value)
        return json.dumps(value, indent=indent, sort_keys=sort_keys, default=default, allow_nan=False)
    except ValueError:
        found = finite(value)
        return json.dumps(found, indent=indent, sort_keys=sort_keys, default=default, allow_nan=False)


def is_finite(value: Any) -> bool:
    """Return whether JSON can hold all numbers of a value."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def finite(value: Any) -> Any:
    """Return nested tables and lists with None in the place of each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value
