"""`rec cluster`: manifests for KubeRay from one file of values, and their check."""

from __future__ import annotations

import argparse

from rec.errors import ConfigError, RequestError
from rec.progress import tell

TEXT = "write manifests for KubeRay from one file of values, or check them by the schemas of a cluster"
INTERRUPTED = "the same command starts again"
EXAMPLES = """examples:
  rec cluster render cluster/values.toml --out cluster/kuberay
  kubectl get crd rayclusters.ray.io rayjobs.ray.io rayservices.ray.io -o yaml > crds.yaml
  rec cluster check cluster/kuberay --crds crds.yaml"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    command.add_argument("what", choices=("render", "check"))
    command.add_argument("path", metavar="PATH", help="of the values (TOML), or of manifests: a file or a folder")
    command.add_argument("--out", metavar="FOLDER", help="where render writes to")
    text = "schemas that check reads: a YAML file or a folder of KubeRay's CustomResourceDefinitions"
    command.add_argument("--crds", metavar="PATH", help=text)


def run(options: argparse.Namespace) -> None:
    """Write manifests and print their paths, or check some."""
    if options.overrides:
        raise RequestError(f"cluster: takes no keys, got {options.overrides[0]!r}; they stand in the file of values")
    needed, other = ("out", "crds") if options.what == "render" else ("crds", "out")
    if getattr(options, needed) is None:
        raise RequestError(f"cluster {options.what}: needs --{needed}")
    if getattr(options, other) is not None:
        raise RequestError(f"cluster {options.what}: takes no --{other}")
    if options.what == "render":
        from rec.cluster.render import render
        from rec.cluster.values import load_values

        tell("\n".join(str(path) for path in render(load_values(options.path), options.out)))
    else:
        tell(_check(options.path, options.crds))


def _check(path: str, crds: str) -> str:
    """Return how many manifests are well.

    Raises:
        ConfigError: something is wrong with one.
    """
    from rec.cluster.schemas import faults, read_crds, read_documents

    schemas, manifests = read_crds(crds), read_documents(path)
    found = [
        f"{manifest.get('kind')} {manifest.get('metadata', {}).get('name')}: {fault}"
        for manifest in manifests
        for fault in faults(manifest, schemas)
    ]
    if found:
        raise ConfigError("\n".join(found))
    return f"{path}: {len(manifests)} manifests are as {crds} wants them"
