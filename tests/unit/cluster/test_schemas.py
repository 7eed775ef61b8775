"""Manifests are checked by structural schemas of Kubernetes, strictly."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rec.cli import main
from rec.cluster.schemas import faults, of_resource, read_crds
from rec.errors import ConfigError

KEY = ("example.org/v1", "Thing")
SCHEMA = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {
                    "anyOf": [{"type": "integer"}, {"type": "string"}],
                    "pattern": "^[0-9]+(Gi)?$",
                    "x-kubernetes-int-or-string": True,
                },
                "port": {"x-kubernetes-int-or-string": True},
                "note": {"type": "string", "nullable": True},
                "mode": {"type": "string", "enum": ["on", "off"], "nullable": True},
                "inner": {"type": "object", "nullable": True, "properties": {"name": {"type": "string"}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "texts": {"type": "object", "additionalProperties": {"type": "string"}},
                "share": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
                "groups": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
                },
            },
        }
    },
}


def found(spec: dict[str, Any], **more: Any) -> list[str]:
    manifest = {"apiVersion": KEY[0], "kind": KEY[1], "metadata": {"name": "a"}, "spec": {"size": 1} | spec} | more
    return faults(manifest, {KEY: of_resource(SCHEMA)})


@pytest.mark.parametrize(
    "spec",
    [
        {"size": 3},
        {"size": "3Gi"},
        {"port": 8000},
        {"port": "http"},
        {"note": None, "mode": None, "inner": None},
        {"mode": "on", "inner": {"name": "b"}},
        {"free": {"anything": [1, {"goes": True}]}},
        {"texts": {"any": "key"}},
        {"groups": [{"replicas": 1}, {}]},
        {"share": 0.5},
    ],
)
def test_what_a_server_takes_is_taken(spec: dict[str, Any]) -> None:
    assert found(spec) == []


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"sise": 1}, "spec.sise: unknown key; did you mean 'size'?"),
        ({"groups": [{}, {"replica": 2}]}, "spec.groups[1].replica: unknown key; did you mean 'replicas'?"),
        ({"inner": {"nam": "b"}}, "spec.inner.nam: unknown key; did you mean 'name'?"),
        ({"size": "3GB"}, "spec.size: '3GB' does not match"),
        ({"size": 1.5}, "spec.size: 1.5 is not"),
        ({"size": None}, "spec.size: None is not"),
        ({"note": 3}, "spec.note: 3 is not of type 'string', 'null'"),
        ({"mode": "of"}, "spec.mode: 'of' is not one of"),
        ({"texts": {"any": 3}}, "spec.texts.any: 3 is not of type 'string'"),
        ({"share": 0}, "spec.share: 0 is less than or equal to"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(spec: dict[str, Any], told: str) -> None:
    assert any(line.startswith(told) for line in found(spec)), found(spec)


def test_what_every_resource_has_is_checked_too() -> None:
    assert found({}, metadata={"name": "a", "lables": {}}) == ["metadata.lables: unknown key; did you mean 'labels'?"]
    assert found({}, metadata={"name": "a", "labels": {"b": 1}}) == ["metadata.labels.b: 1 is not of type 'string'"]
    assert found({}, kind="Thong") == ["kind: no schema of example.org/v1 Thong; there are example.org/v1 Thing"]
    assert found({}, more=1)[0].startswith("more: unknown key")


def crd() -> dict[str, Any]:
    versions = [{"name": "v1", "schema": {"openAPIV3Schema": SCHEMA}}]
    spec = {"group": "example.org", "names": {"kind": "Thing"}, "versions": versions}
    return {"kind": "CustomResourceDefinition", "spec": spec}


@pytest.mark.parametrize("form", ["file", "folder", "list"])
def test_schemas_are_read_as_projects_and_clusters_tell_them(tmp_path: Path, form: str) -> None:
    (tmp_path / "crd.yaml").write_text(yaml.safe_dump({"kind": "List", "items": [crd()]} if form == "list" else crd()))
    assert set(read_crds(tmp_path if form == "folder" else tmp_path / "crd.yaml")) == {KEY}


def test_a_file_without_schemas_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("kind: Service\n")
    with pytest.raises(ConfigError, match="holds no CustomResourceDefinition"):
        read_crds(tmp_path / "other.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not a YAML file"):
        read_crds(tmp_path / "broken.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_crds(tmp_path / "none.yaml")


def test_the_command_checks_and_names_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "crds").mkdir()
    (tmp_path / "crds/crd.yaml").write_text(yaml.safe_dump(crd()))
    manifest = {"apiVersion": KEY[0], "kind": KEY[1], "metadata": {"name": "mine"}, "spec": {"size": 1}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(manifest))
    assert main(["cluster", "check", str(file), "--crds", str(tmp_path / "crds")]) == 0
    assert "1 manifests are as" in capsys.readouterr().out
    file.write_text(yaml.safe_dump(manifest | {"spec": {"size": 1, "prot": 2}}))
    assert main(["cluster", "check", str(file), "--crds", str(tmp_path / "crds")]) == 1
    assert "Thing mine: spec.prot: unknown key; did you mean 'port'?" in capsys.readouterr().err
