"""Raw ids and dense indices, both ways, from memory-mapped files that all processes of a machine share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rec.data.writing import write_array
from rec.errors import DataError
from rec.storage import Storage

MAX_ID = 256
"""Most characters of a raw id: the one limit, of data sets and of requests alike."""
LONGEST_SHOWN = 40


def id_fault(name: str) -> str | None:
    """Return why a text can be no raw id, None where it can."""
    if not name:
        return f"an empty id, expected 1 to {MAX_ID} characters"
    if len(name) > MAX_ID:
        return f"id {name[:LONGEST_SHOWN] + '...'!r} has {len(name):,} characters, expected at most {MAX_ID}"
    if "\0" in name:
        return f"id {name!r} holds the character NUL, which no request can name"
    return None if is_utf8(name) else f"id {name!r} holds half of a surrogate pair, which is no character"


def is_utf8(text: str) -> bool:
    """Return whether UTF-8 has a form of a text: it has none of half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Ids:
    """The raw ids of users or items: UTF-8 bytes in one sorted array, and where each stands in the order of indices."""

    def __init__(self, raw: np.ndarray, order: np.ndarray, sorted_raw: np.ndarray) -> None:
        self.raw, self.order, self.sorted_raw = raw, order, sorted_raw

    @classmethod
    def of(cls, names: Sequence[str]) -> Ids:
        """Return the ids of these names; index i is the i-th. An empty name stands for nobody.

        Raises:
            DataError: a name can be no id.
        """
        for name in names:
            if name and (fault := id_fault(name)):
                raise DataError(f"{fault}; prepare the data set again")
        raw = np.array([name.encode() for name in names], dtype=np.bytes_)
        order = np.argsort(raw, kind="stable").astype(np.int32)
        return cls(raw, order, raw[order])

    @classmethod
    def open(cls, folder: str) -> Ids:
        """Return the ids that `write` put into a folder."""
        names = ("raw", "order", "sorted")
        # As plain arrays: every item taken from a memmap is a memmap of its own, which costs more than the item.
        return cls(*(np.asarray(np.load(f"{folder}/{name}.npy", mmap_mode="r")) for name in names))

    def write(self, storage: Storage, folder: str) -> list[str]:
        """Write the ids below a folder and return the files' names."""
        arrays = {"raw": self.raw, "order": self.order, "sorted": self.sorted_raw}
        for name, array in arrays.items():
            write_array(storage, f"{folder}/{name}", array)
        return [f"{folder}/{name}.npy" for name in arrays]

    def __len__(self) -> int:
        return len(self.raw)

    def find(self, names: Sequence[str]) -> np.ndarray:
        """Return the index of each name, -1 where it is not known, (len(names),)."""
        if not names or not len(self.raw):
            return np.full(len(names), -1, dtype=np.int64)
        wanted = np.array([name.encode("utf-8", "surrogatepass") for name in names], dtype=np.bytes_)
        place = np.minimum(np.searchsorted(self.sorted_raw, wanted), len(self.raw) - 1)
        found: np.ndarray = np.where(self.sorted_raw[place] == wanted, self.order[place], -1).astype(np.int64)
        for number, name in enumerate(names):
            if name[-1:] == "\0":  # numpy takes it off, so that another id would be found
                found[number] = -1
        return found

    def name(self, index: int) -> str:
        """Return the raw id at an index.

        Raises:
            IndexError: there is no such index; a negative one does not count from the end.
        """
        if index < 0:
            raise IndexError(f"index {index}: expected 0 to {len(self.raw) - 1}")
        return bytes(self.raw[index]).decode()

    def search(self, prefix: str, limit: int) -> list[str]:
        """Return up to `limit` ids that start with a prefix, in the order of their bytes."""
        start = int(np.searchsorted(self.sorted_raw, np.bytes_(prefix.encode("utf-8", "surrogatepass"))))
        found = []
        for raw in self.sorted_raw[start : start + limit]:
            name = bytes(raw).decode()
            if not name.startswith(prefix):
                break
            found.append(name)
        return found


def sorted_ids(ids: Sequence[str]) -> list[str]:
    """Return ids in the order of their numbers where all are whole numbers, of their text otherwise."""
    try:
        return sorted(ids, key=int)
    except ValueError:
        return sorted(ids)
