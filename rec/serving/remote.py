"""Artifacts on storage elsewhere: put there, and fetched once per machine, as replicas map files."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import uuid
from pathlib import Path
from typing import Any

from rec.errors import DataError
from rec.filesystems import last_name
from rec.storage import Storage

FOLDER = "rec-artifacts-"
"""Folder of one user's fetched artifacts among this machine's temporary files."""
VERSION = re.compile("[0-9a-f]{16}")
"""Names of the folders that hold the files of an artifact elsewhere."""


def upload(folder: Path, uri: str, name: str) -> None:
    """Copy an artifact to a URI, in the place of what is there, which stays whole until the new one is.

    What the manifest `name` lists goes into a folder of its own, the rest beside the manifest, which comes last.
    """
    source, target = Storage(str(folder)), Storage(uri)
    manifest: dict[str, Any] = source.read_json(name)
    place = hashlib.sha256(source.read(name)).hexdigest()[:16]
    listed = [str(entry["name"]) for entry in manifest["files"]]
    for file in listed:
        source.copy(file, target.below(place))
    target.write_json(name, manifest | {"folder": place})
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (file := path.relative_to(folder).as_posix()) not in {name, *listed}:
            source.copy(file, target)
    for old in target.list():
        if VERSION.fullmatch(old) and old != place:
            target.delete(old)


def fetch(uri: str, manifest: dict[str, Any], name: str) -> Path:
    """Return a folder on this machine with the files of a manifest, fetched unless it is there; its file is `name`.

    Raises:
        DataError: a file is missing or damaged.
    """
    data = Storage(uri).read(name)
    source = Storage(uri).below(manifest["folder"])
    place = Path(tempfile.gettempdir()) / f"{FOLDER}{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    key = hashlib.sha256(uri.encode() + b"\0" + data).hexdigest()[:16]
    folder = place / key / last_name(uri)
    if folder.exists():
        return folder
    making = f"{uuid.uuid4().hex}.tmp"
    target = Storage(str(place)).below(making).below(folder.name)
    for entry in manifest["files"]:
        source.copy(entry["name"], target)
        if fault := target.fault(entry):
            raise DataError(f"{source.uri_of(entry['name'])}: was fetched damaged: {fault}")
    target.write_json(name, {key: value for key, value in manifest.items() if key != "folder"})
    storage = Storage(str(place))
    if not storage.exists(key):  # another process may have been faster
        storage.move(making, key)
    else:
        storage.delete(making)
    return folder
