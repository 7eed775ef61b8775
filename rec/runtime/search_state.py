"""The files in which Ray Tune keeps the state of a search: whether they are whole enough to go on from."""

from __future__ import annotations

import fnmatch
import pickle

from rec.errors import DataError, StorageError
from rec.storage import Storage

TUNER, SNAPSHOTS = "tuner.pkl", "experiment_state-*.json"
"""What a search was asked for, written first; and where it stood, by the time of the command that wrote it."""


def can_go_on(state: Storage) -> bool:
    """Return whether a search can go on from the state in a folder.

    Ray Tune writes its files in place, and the first snapshot seconds after the rest: a snapshot that was cut off is
    deleted, so that Ray takes the one of the command before.
    """
    try:
        pickle.loads(state.read(TUNER))
    except StorageError:
        raise
    except (DataError, pickle.UnpicklingError, EOFError):
        return False
    for name in sorted(fnmatch.filter(state.list(), SNAPSHOTS), reverse=True):
        try:
            if state.read_json(name)["trial_data"]:
                return True
        except StorageError:
            raise
        except (DataError, KeyError):
            pass
        state.delete(name)
    return False
