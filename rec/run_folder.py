"""A run's folder: the config that it holds, and who may write to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from rec.config import RunConfig, from_json
from rec.errors import ConfigError
from rec.storage import Storage

CONFIG = "config.json"


def recorded(storage: Storage) -> RunConfig:
    """Return the config that a run's folder holds.

    A folder of data that it names from the working folder of that time is found from any other, as long as the run's
    folder lies where it was made: `out` tells where that was.

    Raises:
        ConfigError: the config is damaged.
    """
    try:
        config = from_json(storage.read(CONFIG).decode())
    except ValueError as error:
        raise ConfigError(
            f"{storage.uri}/{CONFIG}: not the config of a run ({error}); restore the file, or train in another out="
        ) from error
    root, out = config.data.root, config.out
    if any("://" in path or Path(path).is_absolute() for path in (root, out)):
        return config
    here, made_in = Path(storage.root).absolute(), Path(os.path.normpath(out)).parts
    if not storage.is_local or here.parts[-len(made_in) :] != made_in:
        return config
    found = os.path.normpath(here.parents[len(made_in) - 1] / root)
    if found == os.path.abspath(root):
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"root": found})})


@contextlib.contextmanager
def alone(folder: str) -> Iterator[None]:
    """Let no other command of this host train in a run's folder meanwhile, where that lies on a local disk.

    Raises:
        ConfigError: one does.
    """
    storage = Storage(folder)
    if not storage.is_local:
        yield
        return
    storage.make_folder()
    number = os.open(storage.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"out: another command trains in {folder} right now; wait until it ends, or choose another out="
            ) from error
        except OSError:  # a disk that knows no locks
            pass
        yield
    finally:
        os.close(number)
