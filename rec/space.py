"""Search spaces as data: which values a dotted key may take, and when it counts at all.

"train.learning_rate" = { log = [1e-4, 1e-2] }
"model.dropout" = { uniform = [0.0, 0.5] }
"model.blocks" = { int = [1, 3] }
"model.gate" = { choice = ["item", "user"] }
"model.temperature" = { log = [0.05, 2.0], when = { "model.gate" = ["item"] } }
"model.top_k" = { choice = [1, 2], when = { "model.gate" = { not = ["none"] } } }
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Kind = Literal["log", "uniform", "int", "choice"]
KINDS: tuple[Kind, ...] = ("log", "uniform", "int", "choice")
Point = dict[str, Any]


class Suggest(Protocol):
    """What draws values; an Optuna trial is one."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number in [low, high]."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return a whole number in [low, high]."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Return one of the choices."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """The values that one key may take, under a condition on other keys."""

    kind: Kind
    values: tuple[Any, ...]
    """Lowest and highest value, or all choices."""
    when: Mapping[str, tuple[bool, tuple[Any, ...]]] = field(default_factory=dict)
    """Per other key: whether its value must be among these, or must not."""

    def draw(self, name: str, suggest: Suggest) -> Any:
        """Return one value."""
        if self.kind == "choice":
            return suggest.suggest_categorical(name, self.values)
        low, high = self.values
        if self.kind == "int":
            return suggest.suggest_int(name, low, high)
        return suggest.suggest_float(name, low, high, log=self.kind == "log")


def parse(table: Mapping[str, Any]) -> dict[str, Dimension]:
    """Return the dimensions of a `[tune.space]` table, every key after those its condition asks for.

    Raises:
        ValueError: an entry is malformed, or conditions form a ring; the message starts with the key.
    """
    space = {key: _dimension(key, entry) for key, entry in table.items()}
    ordered: dict[str, Dimension] = {}
    while len(ordered) < len(space):
        ready = [
            k for k, d in space.items() if k not in ordered and all(p in ordered or p not in space for p in d.when)
        ]
        if not ready:
            ring = ", ".join(k for k in space if k not in ordered)
            raise ValueError(f"{ring}: each is conditional on another of these, so none can be drawn first")
        ordered |= {key: space[key] for key in ready}
    return ordered


def draw(space: Mapping[str, Dimension], suggest: Suggest, base: Callable[[str], Any]) -> Point:
    """Return one point: a value per key whose condition holds; `base` tells the value of a key outside the space."""
    point: Point = {}
    for key, dimension in space.items():
        if active(dimension, point, space, base):
            point[key] = dimension.draw(key, suggest)
    return point


def active(dimension: Dimension, point: Point, space: Mapping[str, Dimension], base: Callable[[str], Any]) -> bool:
    """Return whether a dimension counts at a point that has every key before it."""
    for key, (among, values) in dimension.when.items():
        if key in space and key not in point:
            return False  # a key that does not count itself allows nothing
        found = point[key] if key in point else base(key)
        if (found in values) != among:
            return False
    return True


def prefixed(table: Mapping[str, Any], at: str) -> dict[str, Any]:
    """Return a table of a space whose keys, those of conditions too, lie below `at`."""
    moved = {}
    for key, entry in table.items():
        when = {f"{at}{name}": values for name, values in entry.get("when", {}).items()}
        moved[f"{at}{key}"] = {**entry, "when": when} if when else dict(entry)
    return moved


def _dimension(key: str, entry: Any) -> Dimension:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{key}: expected a table like {{ log = [1e-4, 1e-2] }}, got {entry!r}")
    kinds = [kind for kind in KINDS if kind in entry]
    unknown = sorted(entry.keys() - {*KINDS, "when"})
    if len(kinds) != 1 or unknown:
        found = ", ".join(map(str, entry)) or "nothing"
        raise ValueError(f"{key}: expected exactly one of {', '.join(KINDS)}, and possibly when; got {found}")
    kind, values = kinds[0], entry[kinds[0]]
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"{key}.{kind}: expected a list of values, got {values!r}")
    values = tuple(values)
    if kind != "choice":
        _check_range(f"{key}.{kind}", kind, values)
    return Dimension(kind, values, {name: _condition(f"{key}.when", v) for name, v in entry.get("when", {}).items()})


def _check_range(key: str, kind: Kind, values: tuple[Any, ...]) -> None:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    numbers = numbers and (kind != "int" or all(isinstance(v, int) for v in values))
    if len(values) != 2 or not numbers or values[0] >= values[1]:
        word = "whole numbers" if kind == "int" else "numbers"
        raise ValueError(f"{key}: expected two {word}, the lower first, got {list(values)!r}")
    if kind == "log" and values[0] <= 0:
        raise ValueError(f"{key}: expected numbers above 0, got {list(values)!r}")


def _condition(key: str, value: Any) -> tuple[bool, tuple[Any, ...]]:
    if isinstance(value, Mapping) and set(value) == {"not"} and isinstance(value["not"], list | tuple):
        return False, tuple(value["not"])
    if isinstance(value, list | tuple):
        return True, tuple(value)
    raise ValueError(f"{key}: expected a list of values or {{ not = [...] }}, got {value!r}")
