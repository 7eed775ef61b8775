"""Jobs on a cluster elsewhere: packed, submitted, followed, stopped and listed through Ray Jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shlex
import signal
import socket
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import requests
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import _dir_travel, _get_excludes
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from rec.errors import ConfigError, RequestError, TrainingError, one_line
from rec.event_loop import run
from rec.levels import of_libraries
from rec.sections import counted

ADDRESS, TOKEN = "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN"
USUAL = "http://127.0.0.1:8265"
MOST_BYTES = 200 << 20
"""Largest working directory that is packed: what is larger are data, and every node would get a copy."""
MIB = 1 << 20
CONNECT_S = 5.0
RETRY_S, PATIENCE_S = 2.0, 120.0
"""Seconds between tries, and how long a cluster may not answer."""
LOUD = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Loggers that tell each step of Ray's own client; each has a level of its own."""
STARTING = "No available agent"
"""What a cluster says that has just started."""
STOPPING_S = 30.0
"""So long the end of a job that is told to stop is waited for."""
STOPPED = 128 + signal.SIGTERM
"""Exit code of a job that was stopped."""


def connected(address: str | None) -> JobSubmissionClient:
    """Return a client of the cluster at an address, of the environment's where none is given.

    Raises:
        ConfigError: no cluster answers there, or it refuses the token.
    """
    named = address or os.environ.get(ADDRESS) or USUAL
    where = named if "://" in named else f"http://{named}"
    for name in LOUD:
        logging.getLogger(name).setLevel(of_libraries())
    told = f"--address: no cluster answers at {where}; name that of its dashboard, or set {ADDRESS}"
    try:
        parts = urlsplit(where)
        port = parts.port or (443 if parts.scheme == "https" else 8265)
        # Ray itself would wait for minutes where nothing answers.
        socket.create_connection((parts.hostname or "", port), CONNECT_S).close()
        return JobSubmissionClient(where)
    except AuthenticationError as error:
        raise _refused(where) from error
    except (OSError, ValueError, RuntimeError) as error:  # ConnectionError and those of requests among them
        raise ConfigError(f"{told} ({one_line(str(error))})") from error


def _refused(where: str) -> ConfigError:
    what = "is not the one of the cluster" if os.environ.get(TOKEN) else "is not set"
    return ConfigError(f"{TOKEN}: the cluster at {where} refuses this client: the token {what}")


def packed(folder: Path, exclude: Sequence[str]) -> tuple[int, int]:
    """Return how many files and bytes of a folder travel: without what .gitignore, .rayignore and `exclude` name.

    Raises:
        RequestError: they are too many bytes.
    """
    sizes: dict[Path, int] = {}

    def note(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(folder)] = path.stat().st_size

    left_out = _get_excludes(folder, [*get_runtime_env_default_excludes(), *exclude])
    _dir_travel(folder, [left_out], note, include_gitignore=True, logger=logging.getLogger("ray"))
    total = sum(sizes.values())
    if total > MOST_BYTES:
        below: dict[str, int] = {}
        for path, size in sizes.items():
            below[path.parts[0]] = below.get(path.parts[0], 0) + size
        largest = sorted(below, key=lambda name: -below[name])[:3]
        told = ", ".join(f"{name} {below[name] / MIB:.0f} MiB" for name in largest)
        raise RequestError(
            f"--working-dir {folder}: {total / MIB:.0f} MiB in {counted(len(sizes), 'file')}, expected at most "
            f"{MOST_BYTES / MIB:.0f}; largest are {told}; leave them out with --exclude or .gitignore, and put data "
            "where every node opens them"
        )
    return len(sizes), total


def submit(
    client: JobSubmissionClient, words: Sequence[str], folder: Path, exclude: Sequence[str], say: Callable[[str], None]
) -> str:
    """Submit `rec WORDS` with a folder as its working directory; return the job's id.

    Raises:
        RequestError: the folder is too large, or the cluster refuses the job.
    """
    files, size = packed(folder, exclude)
    name = f"rec-{words[0]}-{secrets.token_hex(4)}"
    told = f"{counted(files, 'file')} of {folder}, {size / MIB:.1f} MiB"
    environment = {"working_dir": str(folder), "excludes": list(exclude)}
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            client.submit_job(
                entrypoint=shlex.join(["python", "-m", "rec.cli", *words]), submission_id=name, runtime_env=environment
            )
            break
        except RuntimeError as error:
            if STARTING not in str(error) or time.monotonic() > deadline_s:
                raise RequestError(f"the cluster refuses the job: {one_line(str(error))}") from error
            time.sleep(RETRY_S)
    say(f"{name}: submitted with {told}")
    return name


def follow(client: JobSubmissionClient, name: str, show: Callable[[str], None]) -> int:
    """Hand every line of a job's log to `show` until it ends; return its exit code.

    Where the cluster does not answer for a while, it goes on where it stopped. A job that failed without a last line
    of its own gets one.

    Raises:
        RequestError: there is no such job.
        TrainingError: the cluster does not answer any more.
    """
    log, heard_s, silent = _Log(show), time.monotonic(), False
    while True:
        try:
            details = _details(client, name)
            with asyncio.Runner() as runner:
                run(runner, partial(log.read, client, name))
            details = _details(client, name)
            heard_s, silent = time.monotonic(), False
            if details.status.is_terminal():
                break
        except (aiohttp.ClientError, requests.RequestException, ConnectionError, RuntimeError) as error:
            if time.monotonic() - heard_s > PATIENCE_S:
                raise TrainingError(
                    f"{name}: the cluster does not answer any more ({one_line(str(error))}); the job may go on: rec "
                    f"submit --follow {name}"
                ) from error
            if not silent:
                show(f"{name}: the cluster does not answer; asking for another {PATIENCE_S:.0f} s")
            silent = True
        time.sleep(RETRY_S)
    log.end()
    code = _exit_code(details)
    if code and not log.last.startswith("error: "):
        why = "was stopped" if details.status == JobStatus.STOPPED else f"failed: {_first(details.message)}"
        show(f"error: {name} {why}")
    return code


def stop(client: JobSubmissionClient, name: str, patience_s: float = STOPPING_S) -> str:
    """Stop a job, wait so long until it has ended, and return what came of it.

    Raises:
        RequestError: there is no such job.
    """
    if _details(client, name).status.is_terminal():
        return "had ended already"
    client.stop_job(name)
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        if (status := _details(client, name).status).is_terminal():
            return "stopped" if status == JobStatus.STOPPED else f"ended by itself meanwhile: {status.value.lower()}"
        time.sleep(RETRY_S)
    after = f", and has not ended after {patience_s:.0f} s" if patience_s else ""
    return f"told to stop{after}; rec submit --list tells when it has ended"


def listed(client: JobSubmissionClient) -> list[str]:
    """Return a line per job that was submitted, the newest last: id, state, when it began, command."""
    jobs = [job for job in client.list_jobs() if job.submission_id]
    lines = []
    for job in sorted(jobs, key=lambda one: one.start_time or 0):
        began = datetime.fromtimestamp((job.start_time or 0) / 1000).isoformat(" ", "seconds")
        command = job.entrypoint.replace("python -m rec.cli", "rec")
        lines.append(f"{job.submission_id}  {job.status.value.lower():9}  {began}  {command}")
    return lines


class _Log:
    """The log of a job, of which a stretch was shown."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self.show, self.seen, self.rest, self.last = show, 0, "", ""

    async def read(self, client: JobSubmissionClient, name: str) -> None:
        """Show what is new, until the job ends or the connection does."""
        position = 0
        async for text in client.tail_job_logs(name):
            # Every connection begins with the first line.
            new = text[max(0, self.seen - position) :]
            position += len(text)
            self.seen = max(self.seen, position)
            *lines, self.rest = (self.rest + new).split("\n")
            for line in lines:
                self._tell(line)

    def end(self) -> None:
        """Show what has no end of line."""
        if self.rest:
            self._tell(self.rest)

    def _tell(self, line: str) -> None:
        self.show(line)
        self.last = line if line.strip() else self.last


def _details(client: JobSubmissionClient, name: str) -> JobDetails:
    try:
        return client.get_job_info(name)
    except RuntimeError as error:
        if "404" in str(error) or "does not exist" in str(error):
            raise RequestError(f"{name}: the cluster knows no such job; rec submit --list names them") from error
        raise


def _exit_code(details: JobDetails) -> int:
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if details.status == JobStatus.STOPPED:
        return STOPPED
    code = details.driver_exit_code or 1
    return 128 - code if code < 0 else int(code)


def _first(message: str | None) -> str:
    with contextlib.suppress(IndexError):
        return (message or "").strip().splitlines()[0]
    return "the cluster does not tell why"
