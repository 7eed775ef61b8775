"""Manifests beside the schemas of custom resources (CRDs), as a cluster's API server would read them, but strictly."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rec.errors import ConfigError

Schema = dict[str, Any]
JUNCTORS = ("allOf", "anyOf", "oneOf", "not")
"""What only adds rules: keys are known by what stands outside of them."""
METADATA = ("name", "generateName", "namespace", "labels", "annotations", "finalizers")
"""What a manifest may say about itself; the rest is the server's."""
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def strict(schema: Mapping[str, Any]) -> Schema:
    """Return a structural schema of Kubernetes as a JSON schema that takes no unknown key.

    `x-kubernetes-int-or-string` and `nullable` mean what they mean there. A server drops unknown keys without a word,
    unless `x-kubernetes-preserve-unknown-fields` or `additionalProperties` let them be; here they are errors.
    """
    if "$ref" in schema:
        return dict(schema)
    made = {key: value for key, value in schema.items() if key in JUNCTORS or not isinstance(value, dict | list)}
    made |= {key: schema[key] for key in ("required", "enum") if key in schema}
    if "properties" in schema:
        made["properties"] = {name: strict(inner) for name, inner in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            made[key] = strict(schema[key])
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    is_object = schema.get("type") == "object" or "properties" in schema
    if is_object and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    for bound, strictly in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(made.get(strictly), bool):  # as in OpenAPI 3.0
            made |= {strictly: made.pop(bound)} if made.pop(strictly) else {}
    return _or_null(made) if schema.get("nullable") else made


def _or_null(schema: Schema) -> Schema:
    """Return a schema that takes null as well."""
    types = schema.get("type", [])
    nullable = {"type": [*([types] if isinstance(types, str) else types), "null"]} if types else {}
    return schema | nullable | ({"enum": [*schema["enum"], None]} if "enum" in schema else {})


def of_resource(schema: Mapping[str, Any]) -> Schema:
    """Return the strict schema of a whole resource: with what every one has beside its own keys."""
    made = strict(schema)
    texts = {"labels": TEXTS, "annotations": TEXTS, "finalizers": {"type": "array", "items": {"type": "string"}}}
    metadata = {"type": "object", "additionalProperties": False, "required": ["name"]}
    metadata["properties"] = {name: texts.get(name, {"type": "string"}) for name in METADATA}
    own = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": metadata}
    made["properties"] = made.get("properties", {}) | own
    made["required"] = sorted({*made.get("required", ()), *own})
    return made


def read_crds(path: str | Path) -> dict[tuple[str, str], Schema]:
    """Return the strict schemas of custom resources by (apiVersion, kind).

    Args:
        path: A YAML file, or a folder with some: CRDs as a project publishes them, or as `kubectl get crd NAME -o yaml`
            tells them.

    Raises:
        ConfigError: the file cannot be read, or holds none.
    """
    found: dict[tuple[str, str], Schema] = {}
    for document in read_documents(path):
        for crd in document["items"] if document.get("kind") == "List" else [document]:
            if crd.get("kind") != "CustomResourceDefinition":
                continue
            spec = crd["spec"]
            for version in spec["versions"]:
                key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                found[key] = of_resource(version["schema"]["openAPIV3Schema"])
    if not found:
        raise ConfigError(f"{path}: holds no CustomResourceDefinition")
    return found


def read_documents(path: str | Path) -> list[dict[str, Any]]:
    """Return the documents of a YAML file, or of all below a folder.

    Raises:
        ConfigError: there is none, or one is no YAML or no table.
    """
    import yaml

    top = Path(path)
    files = sorted(file for end in ("*.yaml", "*.yml") for file in top.rglob(end)) if top.is_dir() else [top]
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # KubeRay's files are a megabyte each
    found = []
    for file in files:
        try:
            documents = [document for document in yaml.load_all(file.read_text(), loader) if document is not None]
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: not a YAML file ({error})") from error
        if any(not isinstance(document, dict) for document in documents):
            raise ConfigError(f"{file}: expected tables")
        found += documents
    if not found:
        raise ConfigError(f"{path}: holds no YAML file with something in it")
    return found


def faults(manifest: Mapping[str, Any], schemas: Mapping[tuple[str, str], Schema], registry: Any = None) -> list[str]:
    """Return what is wrong with a manifest, one line for each key, with its path; nothing where all is well.

    Args:
        manifest: Plain values.
        schemas: By (apiVersion, kind).
        registry: Of `referencing`, where schemas refer to others.
    """
    from jsonschema import Draft202012Validator

    kind = manifest.get("apiVersion"), manifest.get("kind")
    if kind not in schemas:
        known = ", ".join(" ".join(one) for one in sorted(schemas))
        return [f"kind: no schema of {kind[0]} {kind[1]}; there are {known}"]
    schema = schemas[kind]  # type: ignore[index]
    more = {} if registry is None else {"registry": registry}
    return sorted(_told(Draft202012Validator(schema, **more).iter_errors(dict(manifest))))


def _told(errors: Iterable[Any]) -> Iterable[str]:
    for error in errors:
        if error.validator == "additionalProperties" and error.validator_value is False:
            known = error.schema.get("properties", {})
            for key in sorted(set(error.instance) - set(known)):
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
                yield f"{path_of([*error.absolute_path, key])}: unknown key; {hint}"
        else:
            yield f"{path_of(error.absolute_path)}: {error.message}"


def path_of(parts: Iterable[Any]) -> str:
    """Return a path as it is written: `spec.workerGroupSpecs[0].replicas`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
