"""What a config may have meant by an import path that names no class: what is shipped, and what is near it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from difflib import get_close_matches

PACKAGES = {"system": ("rec.systems",), "data.source": ("rec.data.sources", "rec.data.generated")}
"""Config keys that hold import paths, and where the package keeps classes for them."""
MARKS = {"system": "tasks", "data.source": "open"}
"""What a class for the key has beside `Config`."""


def suggestion(name: str, key: str) -> str:
    """Return the end of an error: the import path that may have been meant, or those that are shipped for a key."""
    module, _, attribute = name.partition(":")
    shipped = shipped_for(key)
    near = _near_class(module, attribute) or _near_module(module, attribute) or _near_shipped(name, shipped)
    if near:
        return f"; did you mean {near!r}?"
    form = "an import path package.module:Class"
    return f"; expected {form}, of your own or one of {', '.join(shipped)}" if shipped else f"; expected {form}"


def shipped_for(key: str) -> list[str]:
    """Return the import paths of the package's own classes for a config key."""
    found = []
    for package in PACKAGES.get(key, ()):
        for part in pkgutil.iter_modules(importlib.import_module(package).__path__):
            module = importlib.import_module(f"{package}.{part.name}")
            for name, value in vars(module).items():
                ours = isinstance(value, type) and value.__module__.startswith(module.__name__)
                if ours and hasattr(value, "Config") and hasattr(value, MARKS[key]) and not inspect.isabstract(value):
                    found.append(f"{module.__name__}:{name}")
    return found


def _near_class(module: str, attribute: str) -> str:
    """Return the class of a module whose name is near, "" where there is none."""
    try:
        there = vars(importlib.import_module(module))
    except (ImportError, ValueError):
        return ""
    near = _near(attribute, [name for name, value in there.items() if isinstance(value, type)])
    return f"{module}:{near}" if near else ""


def _near_module(module: str, attribute: str) -> str:
    """Return the module beside the one that is named and not there, whose name is near, "" where there is none."""
    package, _, last = module.rpartition(".")
    try:
        parts = pkgutil.iter_modules(importlib.import_module(package).__path__)
    except (ImportError, ValueError, AttributeError):
        return ""
    near = _near(last, [part.name for part in parts])
    if not near or near == last:
        return ""
    there = hasattr(importlib.import_module(f"{package}.{near}"), attribute)
    return f"{package}.{near}:{attribute}" if there else _near_class(f"{package}.{near}", attribute)


def _near_shipped(name: str, shipped: list[str]) -> str:
    """Return the shipped class whose path, module or own name is near, "" where there is none."""
    for names in ({path: path for path in shipped}, {_class(path): path for path in shipped}):
        for said in (name, _class(name)):
            if near := _near(said, list(names)):
                return names[near]
    return ""


def _class(path: str) -> str:
    return path.rpartition(":")[2]


def _near(name: str, known: list[str]) -> str:
    lower = {one.lower(): one for one in known}
    found = get_close_matches(name.lower(), lower, n=1, cutoff=0.7)
    return lower[found[0]] if found else ""
