"""The values that manifests are made from are checked at the border."""

from pathlib import Path
from typing import Any

import pytest

from rec.cluster.values import Values, byte_count, load_values
from rec.errors import ConfigError

SIZES = {"cpus": 4, "memory": "16Gi", "object_store": "4Gi", "shared_memory": "5Gi"}


def values(**workers: Any) -> Values:
    return Values.model_validate({"image": "rec:1", "workers": {"cpu": SIZES | workers}})


@pytest.mark.parametrize(("text", "count"), [("7", 7), ("3Ki", 3 * 1024), ("2Gi", 2 * 1024**3), ("1Ti", 1024**4)])
def test_amounts_are_counted_in_bytes(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize(
    ("workers", "told"),
    [
        ({"shared_memory": "3Gi"}, r"shared_memory: at least object_store \(4Gi\)"),
        ({"memory": "5120Mi"}, r"memory: more than shared_memory \(5Gi\)"),
        ({"memory": "16GB"}, "memory"),
        ({"object_store": "0Gi"}, "object_store"),
        ({"nodes": 9}, r"nodes: from min_nodes \(1\) to max_nodes \(8\), got 9"),
        ({"min_nodes": 3}, "nodes: from min_nodes"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(workers: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        values(**workers)


@pytest.mark.parametrize("name", ["Rec", "rec_a", "-rec", "rec-", "a" * 21])
def test_names_that_kubernetes_refuses_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Values.model_validate({"name": name, "image": "rec:1", "workers": {"cpu": SIZES}})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('image = "a"\nworker = {}', "worker: unknown key; did you mean 'workers'"),
        ('image = "a"\n[workers.cpu]\nmemroy = "1Gi"', "workers.cpu.memroy: unknown key; did you mean 'memory'"),
        ('image = "a"\n[jobs.trian]', "jobs.trian"),
        ("image", "not a TOML file"),
    ],
)
def test_a_misspelt_value_is_named(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "values.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_values(file)
    assert told in str(error.value)
