"""What several commands do with a run's config."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rec.config import RunConfig, load
from rec.errors import ConfigError, RequestError
from rec.filesystems import uri_below
from rec.levels import say
from rec.progress import Progress
from rec.strict import resolve

if TYPE_CHECKING:
    from rec.data.runner import Runner
T = TypeVar("T")


def writable(file: str | None) -> str | None:
    """Return the file that an option names, after checking that it can be written.

    Raises:
        RequestError: it cannot.
    """
    if file is None:
        return None
    path = Path(file).absolute()
    if path.is_dir():
        raise RequestError(f"--json {file}: is a folder: name a file")
    above = next(folder for folder in path.parents if folder.exists())
    if not above.is_dir():
        raise RequestError(f"--json {file}: {above} is a file, expected a folder")
    target = path if path.exists() else above
    if not os.access(target, os.W_OK):
        raise RequestError(f"--json {file}: {target} cannot be written to; name another place")
    return file


def runs(file: str, overrides: Sequence[str] | None, seeds: int) -> list[RunConfig]:
    """Return the run of the config, or one per seed."""
    given = overrides or ()
    if not seeds:
        return [load(file, given)]
    base = load(file, given).out
    return [
        load(file, [*given, f"out={uri_below(base, f'seed-{seed}')}", f"train.seed={seed}"]) for seed in range(seeds)
    ]


def prepare(config: RunConfig, *, again: bool = False) -> None:
    """Make the data set of a config, and the rows that its system reads; `again` though it is there.

    With Ray Data, or in this process where parallel.workers is 0.
    """
    view = resolve(config.system).view
    views = [view] if view else []
    if not config.parallel.workers:
        _refuse_actors(config)
    if config.parallel.workers:
        from rec.runtime.prepare import prepare as on_ray

        on_ray(config.data, say, views, again=again)
    else:
        from rec.data.prepare import prepare as in_process
        from rec.data.runner import InProcess

        in_process(config.data, InProcess(), say, views, again=again)


def with_runner(config: RunConfig, work: Callable[[Runner], T]) -> T:
    """Return what `work` does with Ray Data, or in this process where parallel.workers is 0."""
    if config.parallel.workers:
        from rec.runtime.prepare import with_runner as on_ray

        return on_ray(config.data, say, work)
    from rec.data.runner import InProcess

    _refuse_actors(config)
    return work(InProcess())


def _refuse_actors(config: RunConfig) -> None:
    """Refuse keys of encoders' processes where everything runs in this one.

    Raises:
        ConfigError: one is set.
    """
    own = config.data.modalities
    parts: dict[str, tuple[Any, tuple[str, ...]]] = {
        "text": (config.data.text, ("actors",)),
        "encode": (config.data.encode, ("actors", "gpus_per_actor")),
        "modalities.writer": (None if own is None else own.writer, ("actors",)),
    }
    for section, (part, keys) in parts.items():
        for key in keys if part is not None else ():
            if getattr(part, key) != type(part).model_fields[key].default:
                raise ConfigError(f"data.{section}.{key}: has no effect with parallel.workers=0; leave it out")


def train(config: RunConfig, file: str | None = None) -> None:
    """Train a run, of a TOML file where it has one: on Ray, or in this process where parallel.workers is 0."""
    from rec.train.narrator import Narrator

    narrator = Narrator(say)
    with Progress("train"):
        if config.parallel.workers:
            from rec.runtime.launch import train as on_ray

            on_ray(config, narrator, say, file)
        else:
            from rec.train.job import train_here

            train_here(config, narrator, say, file)
    if narrator.heard:
        say(f"{config.out}: trained")
