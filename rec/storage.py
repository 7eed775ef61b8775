"""Files on any file system that pyarrow opens: written to a temporary name and moved, or not at all.

Object stores show a file when all of it is there, and would copy it to give it another name, so there it gets its own
name at once. What fails there is tried again by Arrow's client, for about `ATTEMPTS` doubling waits; what still fails
then is a `StorageError`.

A command may be stopped at any moment, without a chance to clean up. What it leaves has a name that says which process
made it: nobody lists such a name, and it goes with the next write to its folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from rec.errors import DataError, StorageError
from rec.filesystems import Held, absolute, cause, open_uri, uri_below
from rec.json_text import json_text

__all__ = ["Storage", "absolute", "open_uri", "uri_below"]
T = TypeVar("T")
CHUNK_BYTES = 1 << 22
TEMPORARY = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<process>[0-9]+)-[0-9a-f]{8}\.tmp$")
"""How names end of what is being written or deleted: by which process of which host."""
FOR_GOOD = frozenset({errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.EROFS, errno.EFBIG})
"""What does not heal by itself; a disk that is full may be given room."""
OBJECT_STORES = ("s3", "gcs", "abfs")
"""What names of their file systems hold."""
ABANDONED_S = 24 * 3600.0
"""Age from which on what another host has left is taken for left."""


def quiet() -> None:
    """Take no note of what is read or written."""


class Storage:
    """One folder on some file system; every path below is relative to it, with forward slashes."""

    def __init__(
        self,
        root: str,
        filesystem: fs.FileSystem | None = None,
        retries: int = 4,
        wait_s: float = 0.2,
        beat: Callable[[], None] = quiet,
    ):
        self.uri, self.beat = root, beat
        """`beat` is called after every `CHUNK_BYTES` that are read or written, so that long files are not silent."""
        if filesystem is None:
            filesystem, root = open_uri(root)
        self.filesystem, self.root = filesystem, root.rstrip("/")
        self.retries, self.wait_s = retries, wait_s
        self.tidied: set[str] = set()
        """Folders that this storage has written to, and so looked through."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Open it anew in another process, where it has a URI: pickled file systems hold keys, which expire."""
        if "://" not in self.uri:
            return super().__reduce__()  # type: ignore[return-value]
        return Storage, (self.uri, None, self.retries, self.wait_s, self.beat)

    def below(self, folder: str) -> Storage:
        """Return the storage of a folder below this one."""
        child = Storage(f"{self.root}/{folder}", self.filesystem, self.retries, self.wait_s, self.beat)
        child.uri = uri_below(self.uri, folder)
        return child

    def path(self, name: str) -> str:
        """Return the path of `name` on the file system."""
        return f"{self.root}/{name}" if name else self.root

    def uri_of(self, name: str) -> str:
        """Return the URI of `name`: absolute, whatever the working folder of who opens it."""
        return uri_below(self.uri, name) if "://" in self.uri else self.path(name)

    def exists(self, name: str) -> bool:
        """Return whether a file or folder of this name exists."""
        return bool(self._info(name).type != fs.FileType.NotFound)

    def size(self, name: str) -> int | None:
        """Return the size in bytes, None where there is no such file."""
        info = self._info(name)
        return info.size if info.type == fs.FileType.File else None

    def list(self, folder: str = "") -> list[str]:
        """Return the sorted base names in a folder, empty where there is none; what is temporary is left out."""
        return sorted(info.base_name for info in self._infos(folder) if not TEMPORARY.search(info.base_name))

    def temporaries(self, folder: str = "") -> Sequence[str]:
        """Return the base names in a folder of what is being written or deleted, or was when a process was stopped."""
        return sorted(info.base_name for info in self._infos(folder) if TEMPORARY.search(info.base_name))

    def make_folder(self, name: str = "") -> None:
        """Make a folder, and those above it, where they are not there."""
        self.filesystem.create_dir(self.path(name), recursive=True)

    def _info(self, name: str) -> fs.FileInfo:
        with self.telling(name):
            return self.filesystem.get_file_info(self.path(name))

    def _infos(self, folder: str) -> Sequence[fs.FileInfo]:
        with self.telling(folder):
            found: Sequence[fs.FileInfo] = self.filesystem.get_file_info(
                fs.FileSelector(self.path(folder), allow_not_found=True)
            )
            return found

    @contextlib.contextmanager
    def telling(self, name: str) -> Iterator[None]:
        """Name the file where a store that is no disk of this machine fails: its errors have no number."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno is not None:
                raise
            raise StorageError(f"{self.uri_of(name)}: the storage fails ({cause(error)})") from error

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        try:
            with self.telling(name), self.filesystem.open_input_stream(self.path(name)) as stream:
                return bytes(stream.read())
        except OSError as error:
            raise DataError(f"{self.uri_of(name)}: cannot be read ({error})") from error

    def open(self, name: str) -> pa.NativeFile:
        """Return a file opened for random access."""
        with self.telling(name):
            return self.filesystem.open_input_file(self.path(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file under a temporary name, then move it into place; transient errors are retried."""
        view = memoryview(data)

        def fill(stream: IO[bytes]) -> None:
            for start in range(0, len(view), CHUNK_BYTES):
                stream.write(view[start : start + CHUNK_BYTES])
                self.beat()

        self.write_with(name, fill)

    def write_with(self, name: str, fill: Callable[[IO[bytes]], Any]) -> None:
        """Let `fill` write the file under a temporary name, then move it into place."""
        self._retry(lambda: self._write_once(name, fill), name)

    def _write_once(self, name: str, fill: Callable[[IO[bytes]], Any]) -> None:
        target = self.path(name)
        if self.is_local and _is_device(target):  # which a move would put a file in the place of
            with self.filesystem.open_output_stream(target) as stream:
                fill(stream)
            return
        if self._is_object_store:
            self._store(target, fill)
            return
        temporary = _temporary(target)
        folder = name.rpartition("/")[0]
        self.make_folder(name.rpartition("/")[0])
        if folder not in self.tidied:
            self.tidied.add(folder)
            self.tidy(folder)
        try:
            with self.filesystem.open_output_stream(temporary) as stream:
                fill(stream)
            self._rename(temporary, target)
        except BaseException:
            if self.filesystem.get_file_info(temporary).type == fs.FileType.File:
                self.filesystem.delete_file(temporary)
            raise

    def _store(self, target: str, fill: Callable[[IO[bytes]], Any]) -> None:
        """Let `fill` write an object, which nobody sees before its end; Arrow would keep half of one after an error."""
        held = Held(lambda: self.filesystem.open_output_stream(target))
        try:
            fill(held)  # type: ignore[arg-type]
        except BaseException:
            if held.drop():
                with contextlib.suppress(OSError):
                    self.filesystem.delete_file(target)
            raise
        held.close()

    def copy(self, name: str, target: Storage) -> None:
        """Copy a file into another storage, under the same name."""

        def fill(stream: IO[bytes]) -> None:
            with self.telling(name), self.filesystem.open_input_stream(self.path(name)) as source:
                for chunk in _chunks(source):
                    stream.write(chunk)

        target.write_with(name, fill)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as JSON."""
        self.write(name, to_bytes(value))

    def read_json(self, name: str) -> Any:
        """Return a JSON file's value."""
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise DataError(f"{self.uri_of(name)}: not JSON ({error})") from error

    def renew(self, name: str, data: bytes) -> None:
        """Write a whole file, unless it holds these bytes already."""
        if not self.exists(name) or self.read(name) != data:
            self.write(name, data)

    def move(self, name: str, target: str) -> None:
        """Give a file or folder another name, which nothing has; in one step on a local disk."""
        with self.telling(name):
            self._rename(self.path(name), self.path(target))

    def delete(self, name: str) -> None:
        """Delete a file or a whole folder, if it is there; on a local disk nobody sees a part of it."""
        path = self.path(name)
        kind = self._info(name).type
        if kind == fs.FileType.Directory and self.is_local:
            aside = _temporary(path.rstrip("/"))
            self._rename(path, aside)
            path = aside
        if kind != fs.FileType.NotFound:
            with self.telling(name):
                self._remove(path)

    def tidy(self, folder: str = "") -> None:
        """Delete what stopped processes were writing to a folder, or deleting from it."""
        if self._is_object_store:  # where nothing has such a name
            return
        for info in self._infos(folder):
            found = TEMPORARY.search(info.base_name)
            if found and self._is_left(found["host"], int(found["process"]), info.mtime_ns):
                self._remove(info.path)

    def _is_left(self, host: str, process: int, changed_ns: int | None) -> bool:
        """Return whether nobody works any more on what a process of a host has made."""
        if changed_ns is not None and time.time() - changed_ns / 1e9 > ABANDONED_S:
            return True
        return self.is_local and host == _host() and not _runs(process)

    @property
    def is_local(self) -> bool:
        """Whether other libraries find the files by their paths."""
        return bool(self.filesystem.type_name == "local")

    @property
    def _is_object_store(self) -> bool:
        """Return whether files appear when they are whole, and cannot be renamed but by a copy."""
        return any(store in self.filesystem.type_name for store in OBJECT_STORES)

    def _rename(self, path: str, target: str) -> None:
        self.filesystem.move(path, target)

    def _remove(self, path: str) -> None:
        """Delete a file or folder; another process may have done so by now."""
        is_folder = self.filesystem.get_file_info(path).type == fs.FileType.Directory
        with contextlib.suppress(FileNotFoundError):
            (self.filesystem.delete_dir if is_folder else self.filesystem.delete_file)(path)

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file's bytes."""
        digest = hashlib.sha256()
        with self.telling(name), self.filesystem.open_input_stream(self.path(name)) as stream:
            for chunk in _chunks(stream):
                digest.update(chunk)
                self.beat()
        return digest.hexdigest()

    def entry(self, name: str) -> dict[str, Any]:
        """Return what a manifest says of a file: name, size and checksum."""
        return {"name": name, "bytes": self.size(name), "sha256": self.sha256(name)}

    def entries(self, names: Sequence[str]) -> Sequence[dict[str, Any]]:
        """Return the entries of several files, read several at a time."""
        with ThreadPoolExecutor(pa.cpu_count()) as pool:
            return list(pool.map(self.entry, names))

    def fault(self, entry: dict[str, Any], *, deep: bool = True) -> str | None:
        """Return what is wrong with the file that a manifest entry describes, None where it is whole.

        Without `deep` its size counts, not its checksum.
        """
        size = self.size(entry["name"])
        if size is None:
            return f"{self.uri_of(entry['name'])}: missing"
        if size != entry["bytes"]:
            return f"{self.uri_of(entry['name'])}: {size} bytes, expected {entry['bytes']}"
        if deep and self.sha256(entry["name"]) != entry["sha256"]:
            return f"{self.uri_of(entry['name'])}: checksum differs from the manifest"
        return None

    def manifest(self, name: str, version: int, what: str, command: str) -> dict[str, Any]:
        """Return the manifest of a folder that is complete: its format is known and all files have their sizes.

        Args:
            name: The manifest's file.
            version: The format that can be read.
            what: What the folder is to hold, in words.
            command: What makes it.

        Raises:
            DataError: the folder holds none, is not complete, or another version wrote it.
        """
        if not self.exists(name):
            raise DataError(f"{self.uri}: no {what} here ({name} is missing); run `{command}`")
        manifest: dict[str, Any] = self.read_json(name)
        if manifest.get("format") != version:
            found = manifest.get("format")
            raise DataError(f"{self.uri_of(name)}: format {found}, expected {version}; run `{command}` again")
        where = self.below(manifest["folder"]) if "folder" in manifest else self
        for entry in manifest["files"]:
            size = where.size(entry["name"])
            if size != entry["bytes"]:
                found = "missing" if size is None else f"{size} bytes, expected {entry['bytes']}"
                raise DataError(f"{where.uri_of(entry['name'])}: {found}; run `{command}` again")
        return manifest

    def _retry(self, action: Callable[[], T], name: str) -> T:
        tries = 1 if self._is_object_store else self.retries  # its client has tried again by then
        for attempt in range(tries):
            try:
                return action()
            except OSError as error:
                told = f"{self.uri_of(name)}: cannot be written ({cause(error)})"
                if error.errno in FOR_GOOD:
                    raise DataError(told) from error
                if attempt + 1 == tries or error.errno == errno.ENOSPC:
                    raise StorageError(told) from error
                time.sleep(self.wait_s * 2**attempt)
        raise AssertionError("unreachable")


def _temporary(path: str) -> str:
    return f"{path}.{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _runs(process: int) -> bool:
    """Return whether a process of this host is alive."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _is_device(path: str) -> bool:
    """Return whether something that is neither file nor folder has this path, such as a device or a pipe."""
    found = Path(path)
    return found.exists() and not (found.is_file() or found.is_dir())


def to_bytes(value: Any) -> bytes:
    """Return a value as a JSON file holds it."""
    return json_text(value, indent=1).encode()


def git_blob_sha1(data: bytes) -> str:
    """Return the name git gives to a file with these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _chunks(stream: Any) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk
