"""`rec submit`: a command of this package as a job of a cluster."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from rec.cli.options import Overrides, argument, at_most_one, option
from rec.config import load
from rec.errors import ConfigError, RecError, RequestError
from rec.levels import QUIET, VERBOSE, logger, say
from rec.storage import absolute

TEXT = "run a command as a job of a Ray cluster, and follow it"
INTERRUPTED = "the job goes on: rec submit --follow ID picks it up, --stop ID ends it, --list names all"
Job = Literal["prepare", "train", "tune", "evaluate", "predict", "report", "export", "benchmark"]
EXAMPLES = """examples:
  rec submit train mine.toml out=s3://runs/mine data.root=s3://data/mine parallel.workers=8
  rec submit prepare mine.toml --exclude 'raw/' --address http://head:8265
  rec submit --list
  rec submit --follow rec-train-1f0c3a52
  rec submit --stop rec-train-1f0c3a52
  rec submit train mine.toml out=/shared/run data.root=/shared/data -- --seeds 3

the working directory travels, without what .gitignore names; the exit code is the job's
RAY_API_SERVER_ADDRESS names the cluster, RAY_AUTH_TOKEN its token; options of JOB follow after --"""


def run(
    job: Annotated[Job | None, argument("JOB", f"one of {', '.join(get_args(Job))}")] = None,
    words: Annotated[list[str] | None, argument("CONFIG", "what JOB takes")] = None,
    overrides: Overrides = None,
    address: Annotated[
        str | None,
        option(
            "--address",
            help="the cluster's dashboard (default: RAY_API_SERVER_ADDRESS, or this machine)",
            metavar="URL",
        ),
    ] = None,
    working_dir: Annotated[
        str, option("--working-dir", help="folder that travels (default: this one)", metavar="DIR")
    ] = ".",
    exclude: Annotated[
        list[str] | None,
        option("--exclude", help="leave out of it, as a line of .gitignore; may be repeated", metavar="PATTERN"),
    ] = None,
    detach: Annotated[bool, option("--detach", help="do not follow it")] = False,
    follow: Annotated[str | None, option("--follow", help="follow a job that was submitted", metavar="ID")] = None,
    stop: Annotated[str | None, option("--stop", help="end a job", metavar="ID")] = None,
    list_: Annotated[bool, option("--list", help="name all jobs")] = False,
) -> int | None:
    """Submit a job, or ask about those that were."""
    at_most_one(follow=follow, stop=stop, list=list_)
    other = follow or stop or list_
    if bool(job) == bool(other):
        raise RequestError("rec submit: expected a JOB, or one of --follow, --stop and --list")
    folder = Path(working_dir).absolute()
    if job and not folder.is_dir():
        raise RequestError(f"--working-dir {folder}: there is no such folder")
    if job:
        sent = Sent([job, *(words or ()), *(overrides or ()), *_level()], overrides or [], folder, exclude or [])
        client, name = _submitted(sent, address)
        if not detach:
            return _followed(client, name)
        print(name)
        return None
    client = _connected(address)
    from rec.runtime import submit

    if list_:
        print("\n".join(submit.listed(client)) or "no job was submitted")
        return None
    if stop is not None:
        say(f"{stop}: {submit.stop(client, stop)}")
        return None
    assert follow is not None
    return _followed(client, follow)


def _level() -> list[str]:
    """Return the words that have the job tell as much as this command."""
    return {QUIET: ["--quiet"], VERBOSE: ["--verbose"]}.get(logger().level, [])


@dataclass(frozen=True)
class Sent:
    """What is submitted."""

    words: list[str]
    overrides: list[str]
    folder: Path
    exclude: list[str]


def _submitted(sent: Sent, address: str | None) -> tuple[Any, str]:
    """Submit a job, and return the client and its name; what its config names is slow to import, checked meanwhile."""
    with ThreadPoolExecutor(1) as others:
        checked = others.submit(_check, sent)
        try:
            client = _connected(address)
            from rec.runtime import submit

            name = submit.submit(client, sent.words, sent.folder, sent.exclude, say)
        except RecError:
            checked.result()  # what is wrong with the config is told first
            raise
        try:
            checked.result()
        except BaseException:
            with contextlib.suppress(Exception):  # what is wrong with the config is what is told
                say(f"{name}: {submit.stop(client, name, patience_s=0)}")
            raise
    return client, name


def _followed(client: Any, name: str) -> int:
    from rec.progress import Merged
    from rec.runtime import submit

    return submit.follow(client, name, Merged().show)


def _connected(address: str | None) -> Any:
    """Return a client of the cluster."""
    from rec.runtime.submit import connected

    return connected(address)


def _check(sent: Sent) -> None:
    """Refuse here what the job would refuse there, and results that would be lost with the job's own folder.

    Raises:
        ConfigError: the config is wrong, or names paths that are relative.
    """
    config = next((word for word in sent.words if word.endswith(".toml")), None)
    if config is None or not (sent.folder / config).is_file():
        return
    found = load(str(sent.folder / config), sent.overrides)
    for key, path in (("out", found.out), ("data.root", found.data.root)):
        if path != absolute(path):
            raise ConfigError(
                f"{key}: {path!r} is relative, and the job's folder ends with the job; name a path that every node "
                "opens, such as /shared/run or s3://bucket/run"
            )
