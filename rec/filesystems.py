"""File systems by URI, and how streams to object stores are written: what `rec.storage` stands on."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from pyarrow import fs

from rec.errors import ConfigError, DataError, one_line

ATTEMPTS = 8
"""How often Arrow's client of S3 asks before it gives up: waits double up to 20 s, 50 s in all where it is refused."""
CONNECT_S, ANSWER_S = 5.0, 15.0
"""Longest waits for a connection to S3, and between two bytes of an answer; then it is asked again."""
HELD_BYTES = 16 << 20
"""Bytes of a file for an object store that are held back until there are more, or all: a file that cannot be made is
then none, and what had its name stays."""
MOST_TOLD = 300
"""Letters that are told of why a file system has failed."""


def open_uri(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the file system and path for a URI or a local path."""
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).absolute())
    if urlsplit(uri).password is not None:
        shown = f"{uri.partition('://')[0]}://...@{uri.rpartition('@')[2]}"
        raise ConfigError(
            f"{shown}: has a key, which logs and the run's files would show; name it in the environment, as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY do"
        )
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (ValueError, OSError) as error:
        raise DataError(f"{uri}: no file system for this path ({cause(error)})") from error
    return (_patient(filesystem) if filesystem.type_name == "s3" else filesystem), path


def _patient(filesystem: fs.FileSystem) -> fs.FileSystem:
    """Return a file system of S3 that asks again for longer: a URI cannot say so."""
    options = filesystem.__reduce__()[1][0] | {"connect_timeout": CONNECT_S, "request_timeout": ANSWER_S}
    for name in ("access_key", "secret_key", "session_token"):  # asked for anew in each process, when they expire too
        del options[name]
    return fs.S3FileSystem(**options, retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS))


class Held:
    """A stream that is opened when there is more to write than is held back, or at the end."""

    def __init__(self, opened: Callable[[], IO[bytes]]) -> None:
        self.opened, self.buffer = opened, io.BytesIO()
        self.stream: IO[bytes] | None = None
        self.closed = False

    def write(self, data: Any) -> int:
        """Take bytes."""
        size = memoryview(data).nbytes
        if self.stream is None and self.buffer.tell() + size > HELD_BYTES:
            self._open()
        (self.stream or self.buffer).write(data)
        return size

    def tell(self) -> int:
        """Return how many bytes there are."""
        return (self.stream or self.buffer).tell()

    def flush(self) -> None:
        """Leave it to the store when bytes travel."""

    def readable(self) -> bool:
        """Return that nothing can be read."""
        return False

    def seekable(self) -> bool:
        """Return that bytes follow one another."""
        return False

    def writable(self) -> bool:
        """Return that bytes are taken."""
        return True

    def _open(self) -> None:
        self.stream = self.opened()
        self.stream.write(self.buffer.getbuffer())

    def close(self) -> None:
        """Write what is held back; then the file is there."""
        if self.closed:
            return
        if self.stream is None:
            self._open()
        assert self.stream is not None
        self.stream.close()
        self.closed = True

    def drop(self) -> bool:
        """Return whether a part of the file may have become one; what is held back is dropped."""
        if self.stream is None:
            return False
        with contextlib.suppress(OSError):
            self.stream.close()
        return True


def uri_below(uri: str, name: str) -> str:
    """Return the URI or path of a name below another one; what follows a question mark in a URI stays at its end."""
    head, mark, options = uri.partition("?") if "://" in uri else (uri, "", "")
    written = quote(name) if "://" in uri else name
    return f"{head.rstrip('/')}/{written}{mark}{options}" if name else uri


def last_name(uri: str) -> str:
    """Return the last name in a path or URI."""
    path = uri.partition("?")[0] if "://" in uri else uri
    return path.rstrip("/").rpartition("/")[2]


def is_folder(path: str) -> bool:
    """Return whether a word of a command line names a folder, not a file: a URI does."""
    return "://" in path or Path(path).is_dir()


def cause(error: Exception) -> str:
    """Return in one line why a file system has failed."""
    told = one_line(str(error))
    return told if len(told) <= MOST_TOLD else f"{told[: MOST_TOLD - 3]}..."


def absolute(uri: str) -> str:
    """Return a URI or path that means the same in every working folder."""
    return uri if "://" in uri else str(Path(uri).absolute())


def beside(uri: str, name: str) -> str:
    """Return a name in the folder that holds another one."""
    above, _, _ = absolute(uri).rstrip("/").rpartition("/")
    return f"{above}/{name}"
