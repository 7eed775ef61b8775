"""Artifacts on storage elsewhere: put there, and fetched once per machine, as replicas map files."""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

from rec.errors import DataError
from rec.filesystems import last_name
from rec.storage import Storage

FOLDER = "rec-artifacts-"
"""Folder of one user's fetched artifacts among this machine's temporary files."""


def upload(folder: Path, uri: str, last: str) -> None:
    """Copy all files of a folder to a URI, one of them last: without it the rest is nothing."""
    source, target = Storage(str(folder)), Storage(uri)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    target.delete(last)
    for name in [*(name for name in names if name != last), last]:
        source.copy(name, target)


def fetch(uri: str, manifest: dict[str, Any], name: str) -> Path:
    """Return a folder on this machine with the files of a manifest, fetched unless it is there; its file is `name`.

    Raises:
        DataError: a file is missing or damaged.
    """
    source = Storage(uri)
    data = source.read(name)
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
    target.write(name, data)
    storage = Storage(str(place))
    if not storage.exists(key):  # another process may have been faster
        storage.move(making, key)
    else:
        storage.delete(making)
    return folder
