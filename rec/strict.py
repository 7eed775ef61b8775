"""Strict: the base of every config model, frozen and without unknown keys."""

from __future__ import annotations

import importlib
import traceback
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
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else module
        # A module that is there and lacks another one is what was meant.
        told = suggestion(name, key) if f"{module}.".startswith(f"{missing}.") else ""
        if missing == module.partition(".")[0] and "did you mean" not in told:
            told += "; its file may lie beside the TOML file or in a folder of PYTHONPATH"
        raise ConfigError(f"{key}: no class {name!r} ({error}){told}") from error
    except Exception as error:  # a module of the user's can raise anything
        frames = traceback.extract_tb(error.__traceback__)
        where = f"line {frames[-1].lineno} of {frames[-1].filename}: " if frames else ""
        where = "" if isinstance(error, SyntaxError) else where
        raise ConfigError(f"{key}: {module} cannot be imported: {where}{type(error).__name__}: {error}") from error
    return found


def check_whole(cls: Any, name: str, key: str) -> None:
    """Check that a class that was named has all that its kind must have.

    Raises:
        ConfigError: it lacks something.
    """
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise ConfigError(f"{key}: {name!r} lacks what every such class has: {', '.join(missing)}")


class Strict(BaseModel):
    """Base of every config model: immutable, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    SPACES: ClassVar[Spaces] = {}
    """Ready-made search spaces by name: the values that keys of this model may take."""
    VARIANTS: ClassVar[Variants] = {}
    """Overrides by name that `rec sweep` compares; the first is what the others are compared with."""

    @field_validator("*", mode="before")
    @classmethod
    def _arrays_are_tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value
