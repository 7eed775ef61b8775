"""JSON schemas of requests and answers with every definition in its place, as documents and the page read them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's schema without references."""
    found = model.model_json_schema()
    return _inlined(found, found.pop("$defs", {}))


def _inlined(part: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(part, list):
        return [_inlined(entry, definitions) for entry in part]
    if not isinstance(part, dict):
        return part
    rest = {name: _inlined(value, definitions) for name, value in part.items() if name != "$ref"}
    if "$ref" not in part:
        return rest
    return {**_inlined(definitions[part["$ref"].rsplit("/", 1)[-1]], definitions), **rest}
