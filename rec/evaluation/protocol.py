"""What tells prepared data and their splits from others: numbers of two runs compare only on the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from rec.json_text import json_text

Manifest = Mapping[str, Any]


def data_of(manifest: Manifest) -> dict[str, Any]:
    """Return what a record keeps of the data set of a run: its split, a hash of all its files, counts, any licence."""
    licence = {"licence": manifest["licence"]} if manifest.get("licence") else {}
    counts = dict(manifest.get("counts", {}))
    return {"split": split_of(manifest), "sha256": _hashed(manifest["files"]), "counts": counts, **licence}


def split_of(manifest: Manifest) -> dict[str, str]:
    """Return the split's protocol, empty where none is told, and a hash that other splits do not have.

    The manifest's own hash counts; where it has none, that of the checksums of the splits' files.
    """
    told = manifest.get("split")
    if isinstance(told, Mapping) and told.get("sha256"):
        return {"protocol": str(told.get("protocol") or ""), "sha256": str(told["sha256"])}
    if "split_sha256" in manifest:
        return {"protocol": "", "sha256": str(manifest["split_sha256"])}
    names = {name for files in manifest["splits"].values() for name, _ in files}
    return {"protocol": "", "sha256": _hashed(entry for entry in manifest["files"] if entry["name"] in names)}


def _hashed(files: Iterable[Mapping[str, Any]]) -> str:
    sums = sorted((entry["name"], entry["sha256"]) for entry in files)
    return hashlib.sha256(json_text(sums).encode()).hexdigest()
