"""Strict: the base of every config model, frozen and without unknown keys."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, field_validator

from rec.errors import ConfigError
from rec.shipped import suggestion

Spaces = Mapping[str, Mapping[str, Mapping[str, Any]]]
Variants = Mapping[str, Sequence[str]]


def flat(table: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Return nested tables as one, its keys joined by dots."""
    joined: dict[str, Any] = {}
    for key, value in table.items():
        joined |= flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return joined


def is_among(key: str, names: Iterable[str]) -> bool:
    """Return whether a dotted key is one of some, or lies below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def resolve(name: str, key: str = "system") -> Any:
    """Return the class that `package.module:Class` names; the key that holds the name stands in errors.

    Raises:
        ConfigError: there is none.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else module
        # A module that is there and lacks another one is what was meant.
        told = suggestion(name, key) if f"{module}.".startswith(f"{missing}.") else ""
        raise ConfigError(f"{key}: no class {name!r} ({error}){told}") from error


class Strict(BaseModel):
    """Base of every config model: immutable, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    SPACES: ClassVar[Spaces] = {}
    """Ready-made search spaces by name: the values that keys of this model may take."""
    VARIANTS: ClassVar[Variants] = {}
    """Overrides by name that `rec sweep` compares; the first is what the others are compared with."""

    @field_validator("*", mode="before")
    @classmethod
    def _arrays_are_tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value
