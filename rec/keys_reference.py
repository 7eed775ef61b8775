"""The reference of keys: sections of TOML files as Markdown tables, read from the models and their docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rec.json_text import json_text
from rec.strict import Strict

LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
KINDS = {bool: "true or false", int: "whole number", float: "number", str: "text", Any: "any value"}
SHOWN = 60
"""Longest default that is shown whole, in characters."""


def sections(name: str, model: type[Strict], made: Strict | None = None) -> Iterator[str]:
    """Yield the sections of a table of keys and of all tables within, each as Markdown.

    `name` is the table's, as in `data.filter`; defaults are those of `made`, or else of the model.
    """
    rows, inner = [], []
    meanings = meanings_of(model)
    for key, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True) if made is None else getattr(made, key)
        below = tables_within(field.annotation)
        words = [meanings.get(key) or _first_line(below), *_needs(model, key)]
        rows.append(f"| `{key}` | {_kind(field)} | {_default(default)} | {_cell(' '.join(filter(None, words)))} |")
        for mark, table in below:
            inner.append((f"{name}.{key}{mark}".lstrip("."), table, default if isinstance(default, table) else None))
    head = [f"`[{name}]`: {_sentence(model)}" if name else _sentence(model), "", "| key | value | default | meaning |"]
    if rows:
        yield "\n".join([*head, "|---|---|---|---|", *rows])
    for at, table, value in inner:
        yield from sections(at, table, value)


def meanings_of(model: type[Strict]) -> dict[str, str]:
    """Return what is said under each key of a model, those of the models that it inherits from included."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if one is not Strict and issubclass(one, Strict):
            body = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0].body  # type: ignore[attr-defined]
            for line, below in pairwise(body):
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and (text := _text(below)):
                    found[line.target.id] = " ".join(text.split())
    return found


def tables_within(annotation: Any) -> list[tuple[str, type[Strict]]]:
    """Return the tables that a key's value holds, each with what follows the key's name: "", or ".NAME" of a table."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return [] if annotation is Strict else [("", annotation)]
    mark = ".NAME" if get_origin(annotation) in (dict, Mapping) else ""
    return [(mark + more, table) for one in get_args(annotation) for more, table in tables_within(one)]


def _text(line: ast.stmt) -> str:
    """Return the text that a line is, "" where it is none."""
    is_constant = isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
    value = line.value.value if is_constant else ""  # type: ignore[attr-defined]
    return value if isinstance(value, str) else ""


def _sentence(model: type[Strict]) -> str:
    return " ".join((model.__doc__ or "").split("\n\n")[0].split())


def _first_line(below: list[tuple[str, type[Strict]]]) -> str:
    return _sentence(below[0][1]) if below else ""


def _kind(field: FieldInfo) -> str:
    told = _values(field.annotation)
    limits = [
        f"{words} {getattr(rule, name)}"
        for rule in field.metadata
        for name, words in LIMITS.items()
        if hasattr(rule, name)
    ]
    return _cell(", ".join([told, *limits]))


def _values(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(parts[0])
    if origin is Literal:
        return ", ".join(f"`{json_text(one)}`" for one in parts)
    if origin is tuple:
        return f"list of {_values(parts[0])}"
    if origin in (dict, Mapping):
        return f"table by name of {_values(parts[1])}"
    if parts:
        return " or ".join(_values(one) for one in parts if one is not NoneType)
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return "table"
    return KINDS.get(annotation, str(getattr(annotation, "__name__", annotation)))


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "unset"
    if isinstance(value, Strict) or (isinstance(value, tuple) and value and isinstance(value[0], Strict)):
        return ""
    text = json_text(value)
    return f"`{_cell(text)}`" if len(text) <= SHOWN else f"`{_cell(text[: SHOWN - 1])}…`"


def _needs(model: type[Strict], key: str) -> list[str]:
    """Return the sentence that says where a key has an effect, none where it always has."""
    needs = model.NEEDS.get(key, {})
    either = needs if isinstance(needs, tuple) else (needs,)
    told = [" and ".join(_need(other, wanted) for other, wanted in one.items()) for one in either if one]
    return [f"Only with {', or '.join(told)}."] if told else []


def _need(other: str, wanted: Any) -> str:
    if isinstance(wanted, dict) and "has" in wanted:
        return f"`{json_text(wanted['has'])}` in `{other}`"
    if isinstance(wanted, dict):
        return f"`{other}` other than {', '.join(f'`{json_text(one)}`' for one in wanted['not'])}"
    return f"`{other}` {' or '.join(f'`{json_text(one)}`' for one in wanted)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
