"""Strict: the base of every config model, frozen and without unknown keys."""

from __future__ import annotations

import importlib
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, field_validator

from rec.errors import ConfigError
from rec.shipped import suggestion

Spaces = Mapping[str, Mapping[str, Mapping[str, Any]]]
Variants = Mapping[str, Sequence[str]]
Twins = dict[str, tuple[str, ...]]
DENSE_ACTIVE, DENSE_TOTAL = "dense, active width", "dense, total width"
RANDOM_GATE, UNIFORM_GATE = "random gate", "uniform gate"
"""What a mixture is held against: one network as wide as the experts of a row, or as all of them, in their place; the
same experts under a gate that never learns; all of them with equal weights."""
Needs = Mapping[str, Mapping[str, Any] | tuple[Mapping[str, Any], ...]]


def joined(several: Iterable[Twins]) -> Twins:
    """Return overrides of several tables by name, those of one name together."""
    found: Twins = {}
    for twins in several:
        for name, words in twins.items():
            found[name] = (*found.get(name, ()), *words)
    return found


def alike(keys: Iterable[str], needs: Mapping[str, Any]) -> Needs:
    """Return the needs of several keys that need the same."""
    return dict.fromkeys(keys, needs)


def flat(table: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Return nested tables as one, its keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return found


def is_among(key: str, names: Iterable[str]) -> bool:
    """Return whether a dotted key is one of some, or lies below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def on_path(folder: Path) -> None:
    """Let modules of a folder be imported, after all that could be before: a system's file may lie beside its TOML."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def sources_of(module: str) -> dict[str, Path]:
    """Return the files of a user's own module and of those beside it that are in use, by their paths from its root.

    Empty for a module of an installed package: who installs that has its files.
    """
    found = sys.modules[module]
    file = Path(str(found.__file__)).resolve()
    root = file.parents[module.count(".") + (file.name == "__init__.py")]
    if _is_installed(file):
        return {}
    # Some modules, as torch.classes, name a file that is not there, relative to no folder.
    told = [Path(str(one.__file__)) for one in list(sys.modules.values()) if getattr(one, "__file__", None)]
    used = [path.resolve() for path in told if path.is_absolute()]
    beside = {
        path
        for path in used
        if path.suffix == ".py" and file.parent in path.parents and root / "rec" not in path.parents
    }
    above = [folder / "__init__.py" for folder in file.parents if root in folder.parents]
    files = {*beside, file, *(path for path in above if path.exists())}
    return {path.relative_to(root).as_posix(): path for path in sorted(files)}


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
        where = "" if isinstance(error, SyntaxError) else _line_of(error)
        raise ConfigError(f"{key}: {module} cannot be imported: {where}{type(error).__name__}: {error}") from error
    return found


def _line_of(error: Exception) -> str:
    """Return the last line of the user's own that an error came through, else the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    told = [frame for frame in frames if Path(frame.filename).is_absolute()]  # others are parts of Python itself
    own = [frame for frame in told if not _is_installed(Path(frame.filename).resolve())]
    return "".join(f"line {frame.lineno} of {frame.filename}: " for frame in (own or frames)[-1:])


def _is_installed(file: Path) -> bool:
    """Return whether a file is of the standard library, of an installed package or of this one."""
    places = [Path(path).resolve() for path in sysconfig.get_paths().values()] + [Path(__file__).resolve().parent]
    return any(place == file or place in file.parents for place in places)


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

    NEEDS: ClassVar[Needs] = {}
    """Keys that have an effect only where other keys of this model have one of some values, none ({"not": [...]}), or
    hold one ({"has": ...}); of several tables one is enough. A key that is set without effect is refused."""

    def twins(self, at: str) -> Twins:
        """Return overrides by name that put something plainer in the place of each mixture: `rec sweep --verdict`.

        By default those of all tables below; twins of one name go together. `at` is where the table stands: "model".
        """
        return joined(value.twins(place) for place, value in self._tables(at))

    def others(self, at: str) -> Twins:
        """Return overrides by name of what else is worth knowing of a mixture: more or fewer experts, fewer inputs.

        By default those of all tables below, as for `twins`.
        """
        return joined(value.others(place) for place, value in self._tables(at))

    def _tables(self, at: str) -> list[tuple[str, Strict]]:
        values = {f"{at}.{key}": getattr(self, key) for key in type(self).model_fields}
        return [(place, value) for place, value in values.items() if isinstance(value, Strict)]

    @field_validator("*", mode="before")
    @classmethod
    def _arrays_are_tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


def idle_keys(model: Strict, at: str = "") -> dict[str, tuple[str, Any]]:
    """Return the keys that are set and have no effect, each with the key that keeps it from one, and that one's value.

    Keys are dotted and start with `at`.
    """
    found: dict[str, tuple[str, Any]] = {}
    for key, field in type(model).model_fields.items():
        value, needs = getattr(model, key), type(model).NEEDS.get(key, {})
        unmet = [_unmet(model, one) for one in (needs if isinstance(needs, tuple) else (needs,))]
        if all(unmet):
            if value != field.get_default(call_default_factory=True):
                other, there = unmet[0][0]
                found[f"{at}{key}"] = f"{at}{other}", there
        elif isinstance(value, Strict):
            found |= idle_keys(value, f"{at}{key}.")
    return found


def _unmet(model: Strict, needs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the keys that have not what is needed, with what they have."""
    return [(other, there) for other, wanted in needs.items() if not _meets(there := _below(model, other), wanted)]


def _below(model: Strict, key: str) -> Any:
    value: Any = model
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _meets(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return wanted["has"] in value if "has" in wanted else value not in wanted["not"]
    return value in wanted
