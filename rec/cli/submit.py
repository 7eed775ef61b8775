"""`rec submit`: a command of this package as a job of a cluster."""

from __future__ import annotations

import argparse
import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rec.config import load
from rec.errors import ConfigError, RecError, RequestError
from rec.levels import QUIET, USUAL, VERBOSE, say
from rec.storage import absolute

TEXT = "run a command as a job of a Ray cluster, and follow it"
INTERRUPTED = "the job goes on: rec submit --follow ID picks it up, --stop ID ends it, --list names all"
JOBS = ("prepare", "train", "tune", "evaluate", "predict", "report", "export", "benchmark")
EXAMPLES = """examples:
  rec submit train mine.toml out=s3://runs/mine data.root=s3://data/mine parallel.workers=8
  rec submit prepare mine.toml --exclude 'raw/' --address http://head:8265
  rec submit --list
  rec submit --follow rec-train-1f0c3a52
  rec submit --stop rec-train-1f0c3a52
  rec submit train mine.toml out=/shared/run data.root=/shared/data -- --seeds 3

the working directory travels, without what .gitignore names; the exit code is the job's
RAY_API_SERVER_ADDRESS names the cluster, RAY_AUTH_TOKEN its token; options of JOB follow after --"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what the command takes beside overrides."""
    command.add_argument("job", metavar="JOB", nargs="?", choices=JOBS, help=f"one of {', '.join(JOBS)}")
    command.add_argument("words", metavar="CONFIG", nargs="*", help="what JOB takes")
    command.add_argument("--address", help="the cluster's dashboard (default: RAY_API_SERVER_ADDRESS, or this machine)")
    command.add_argument("--working-dir", default=".", metavar="DIR", help="folder that travels (default: this one)")
    text = "leave out of it, as a line of .gitignore; may be repeated"
    command.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help=text)
    command.add_argument("--detach", action="store_true", help="do not follow it")
    other = command.add_mutually_exclusive_group()
    other.add_argument("--follow", metavar="ID", help="follow a job that was submitted")
    other.add_argument("--stop", metavar="ID", help="end a job")
    other.add_argument("--list", action="store_true", help="name all jobs")


def run(options: argparse.Namespace) -> int | None:
    """Submit a job, or ask about those that were."""
    other = options.follow or options.stop or options.list
    if bool(options.job) == bool(other):
        raise RequestError("rec submit: expected a JOB, or one of --follow, --stop and --list")
    folder = Path(options.working_dir).absolute()
    words = [options.job, *options.words, *options.overrides, *_level(options)]
    if options.job and not folder.is_dir():
        raise RequestError(f"--working-dir {folder}: there is no such folder")
    if options.job:
        return _submitted(options, words, folder)
    client = _connected(options.address)
    from rec.runtime import submit

    if options.list:
        print("\n".join(submit.listed(client)) or "no job was submitted")
        return None
    if options.stop:
        say(f"{options.stop}: {'stopped' if submit.stop(client, options.stop) else 'had ended already'}")
        return None
    return _followed(client, options.follow)


def _level(options: argparse.Namespace) -> list[str]:
    """Return the words that have the job tell as much as this command."""
    return {QUIET: ["--quiet"], VERBOSE: ["--verbose"]}.get(getattr(options, "level", USUAL), [])


def _submitted(options: argparse.Namespace, words: list[str], folder: Path) -> int | None:
    """Submit a job, and follow it; what its config names is slow to import and checked meanwhile."""
    with ThreadPoolExecutor(1) as others:
        checked = others.submit(_check, options, folder)
        try:
            client = _connected(options.address)
            from rec.runtime import submit

            name = submit.submit(client, words, folder, options.exclude, say)
        except RecError:
            checked.result()  # what is wrong with the config is told first
            raise
        try:
            checked.result()
        except BaseException:
            with contextlib.suppress(Exception):  # what is wrong with the config is what is told
                submit.stop(client, name)
            say(f"{name}: stopped")
            raise
    if options.detach:
        print(name)
        return None
    return _followed(client, name)


def _followed(client: Any, name: str) -> int:
    from rec.progress import Merged
    from rec.runtime import submit

    return submit.follow(client, name, Merged().show)


def _connected(address: str | None) -> Any:
    """Return a client of the cluster."""
    from rec.runtime.submit import connected

    return connected(address)


def _check(options: argparse.Namespace, folder: Path) -> None:
    """Refuse here what the job would refuse there, and results that would be lost with the job's own folder.

    Raises:
        ConfigError: the config is wrong, or names paths that are relative.
    """
    config = next((word for word in options.words if word.endswith(".toml")), None)
    if config is None or not (folder / config).is_file():
        return
    found = load(str(folder / config), options.overrides)
    for key, path in (("out", found.out), ("data.root", found.data.root)):
        if path != absolute(path):
            raise ConfigError(
                f"{key}: {path!r} is relative, and the job's folder ends with the job; name a path that every node "
                "opens, such as /shared/run or s3://bucket/run"
            )
