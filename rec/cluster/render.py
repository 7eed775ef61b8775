"""Manifests of one file of values, as files."""

from __future__ import annotations

from pathlib import Path

from rec.cluster.manifests import Manifest, ray_cluster, ray_job, ray_service, yaml_text
from rec.cluster.values import KINDS, Values


def manifests(values: Values) -> dict[str, Manifest]:
    """Return every manifest by its file: a folder per kind of workers, in it a cluster, a service and the jobs."""
    found: dict[str, Manifest] = {}
    for group in values.workers:
        found[f"{group}/cluster.yaml"] = ray_cluster(values, group)
        found |= {f"{group}/{kind}.yaml": ray_job(values, group, kind) for kind in KINDS}
        found[f"{group}/serve.yaml"] = ray_service(values, group)
    return found


def render(values: Values, folder: str | Path) -> list[Path]:
    """Write the manifests below a folder, in the place of those of the same names, and return their paths."""
    written = []
    for name, manifest in manifests(values).items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Made by `rec cluster render`: change the values, not this file.\n{yaml_text(manifest)}")
        written.append(path)
    return written
