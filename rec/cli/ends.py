"""How a command ends: its exit code, and a last line that is the cause."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rec import provenance
from rec.errors import RecError, one_line
from rec.levels import logger

FAILED, INTERRUPTED, TERMINATED, CLOSED = 1, 128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGPIPE
ADVICE = {
    errno.ENOSPC: "the disk is full: free some space, or name another folder",
    errno.EDQUOT: "the quota is used up: free some space, or name another folder",
    errno.EROFS: "the disk is read-only: name another folder",
    errno.EACCES: "no permission: change the rights, or name another path",
    errno.EPERM: "no permission: change the rights, or name another path",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is a file: name another path",
    errno.EISDIR: "is a folder: name a file",
    errno.EEXIST: "is there already: name another path",
    errno.ENOTEMPTY: "the folder is not empty: name another one",
    errno.ENAMETOOLONG: "the path is too long: name a shorter one",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
    errno.EIO: "the disk fails to read or write",
    errno.EFBIG: "the file system cannot hold a file of this size: name another folder",
}
"""What of the machine can be wrong, and what to do, by the error's number."""


def ended(run: Callable[[], int | None], words: Sequence[str], interrupted: str) -> int:
    """Run a command and return its exit code: 1 for an error, 130 for Ctrl-C, 143 for SIGTERM, 141 for a closed pipe.

    What is wrong with data, config, disk, cluster or request is one line, the last one. Anything else is a bug: its
    traceback goes into a file that the last line names.

    Args:
        run: The command; returns its exit code, None for 0.
        words: The command line, for the file.
        interrupted: What is true where the command was interrupted.
    """
    terminated = threading.Event()
    try:
        with terminable(terminated):
            code = int(run() or 0)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        _last(f"{'terminated' if terminated.is_set() else 'interrupted'}; {interrupted}")
        return TERMINATED if terminated.is_set() else INTERRUPTED
    except RecError as error:
        _traceback(error)
        _last(f"error: {one_line(str(error))}")
    except MemoryError:
        _last("error: out of memory: take smaller batches, fewer workers, or a machine with more")
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            _let_go()
            return CLOSED
        _traceback(error)
        _last(f"error: {_of_machine(error) or _unexpected(error, words)}")
    return FAILED


@contextlib.contextmanager
def terminable(terminated: threading.Event) -> Iterator[None]:
    """Let SIGTERM unwind this command as Ctrl-C does, and set `terminated`: waits in C tell no two signals apart."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: Any) -> None:
        terminated.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _last(line: str) -> None:
    """Tell the last line, where somebody still listens."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        logger().error(line)


def _traceback(error: Exception) -> None:
    """Tell where an error comes from, with --verbose."""
    with contextlib.suppress(OSError, ValueError):
        logger().debug("".join(traceback.format_exception(error)).rstrip("\n"))


def _reader_is_gone() -> bool:
    """Return whether whoever read this command's output has gone, as `head` does."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            poll.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _let_go() -> None:
    """Point what nobody reads to nowhere, so that Python does not stumble over it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            continue
        os.dup2(nowhere, stream.fileno())


def _of_machine(error: Exception) -> str:
    """Return in one line what is wrong with the machine, empty where that is not the cause."""
    if not isinstance(error, OSError) or error.errno not in ADVICE:
        return ""
    # Arrow names the file in its message alone.
    named = str(error.filename) if error.filename is not None else one_line(str(error))
    return f"{named}: {ADVICE[error.errno]}"


def _unexpected(error: Exception, words: Sequence[str]) -> str:
    """Write all that is known of an error that nobody expected; return a line that names it and the file."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    # What a task or actor of Ray's raised comes with a traceback whose last line is the error.
    line = lines[-1] if type(error).__module__.startswith("ray.") else f"{type(error).__name__}: {lines[0]}"
    told = {"command": " ".join(["rec", *words]), "rec": provenance.code(), "versions": provenance.versions()}
    text = "".join([*(f"{name}: {value}\n" for name, value in told.items()), "\n", *traceback.format_exception(error)])
    try:
        number, path = tempfile.mkstemp(prefix="rec-error-", suffix=".txt")
        os.close(number)
        Path(path).write_text(text, encoding="utf-8")
    except OSError:
        logger().error(text)
        return f"unexpected {line}; what is known of it stands above, as no file could be written"
    return f"unexpected {line}; what is known of it stands in {path}"
