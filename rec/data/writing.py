"""Writing tables and arrays, whole or not at all, and a data set that takes another one's place in one step."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rec.storage import Storage

FORMAT = 2
MANIFEST = "manifest.json"
GENERATION = re.compile("data-[0-9a-f]{8}")
"""Name of the folder below the root that holds the files of a data set."""
WORK = "work"
"""Folder below the root for what is not needed once the data set is whole."""


class Draft:
    """A data set in the making: its files lie in a folder of their own, and nothing that was there is touched."""

    def __init__(self, root: str) -> None:
        self.root = Storage(root)
        self.folder = f"data-{uuid.uuid4().hex[:8]}"
        self.storage = self.root.below(self.folder)
        self.files: list[str] = []

    def table(self, name: str, table: pa.Table) -> None:
        """Write the file `name`.parquet."""
        write_table(self.storage, f"{name}.parquet", table)
        self.files.append(f"{name}.parquet")

    def tables(self, tables: Mapping[str, pa.Table]) -> list[tuple[str, int]]:
        """Write the files `name`.parquet, several at a time; return them and their rows."""
        files = write_tables(self.storage, {f"{name}.parquet": table for name, table in tables.items()})
        self.files += [name for name, _ in files]
        return files

    def parts(self, folder: str, table: pa.Table, per_file: int) -> list[tuple[str, int]]:
        """Write a table in files of so many rows; return their names and rows."""
        files = write_parts(self.storage, folder, table, per_file)
        self.files += [name for name, _ in files]
        return files

    def array(self, name: str, array: np.ndarray) -> None:
        """Write the file `name`.npy."""
        write_array(self.storage, name, array)
        self.files.append(f"{name}.npy")

    def note(self, name: str, text: str) -> None:
        """Write a text as the array of its bytes, so that systems read it as they read tables."""
        self.array(name, np.frombuffer(text.encode(), dtype=np.uint8))

    def file(self, name: str, fill: Callable[[IO[bytes]], Any]) -> None:
        """Let `fill` write a file."""
        self.storage.write_with(name, fill)
        self.files.append(name)

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Take the place of what was there: the manifest is written last, then older files go."""
        entries = self.storage.entries(self.files)
        before = self._of_first_format()
        self.root.write_json(MANIFEST, {"format": FORMAT, "folder": self.folder, **manifest, "files": entries})
        for name in before:
            self.root.delete(name)
        sweep(self.root, self.folder)

    def _of_first_format(self) -> list[str]:
        """Return the files of a data set of the first format, which had no folder of its own."""
        if not self.root.exists(MANIFEST):
            return []
        found = self.root.read_json(MANIFEST)
        return [*(entry["name"] for entry in found["files"]), "raw"] if found.get("format") == 1 else []


def sweep(root: Storage, folder: str) -> None:
    """Delete what jobs that were stopped left beside the folder of a data set that is whole."""
    root.tidy()
    for name in root.list():
        if name == WORK or (GENERATION.fullmatch(name) and name != folder):
            root.delete(name)


def write_table(storage: Storage, name: str, table: pa.Table) -> None:
    """Write a Parquet file, whole or not at all."""
    delta = [field.name for field in table.schema if field.type in (pa.int32(), pa.int64())]
    others = [field.name for field in table.schema if field.name not in delta]

    def fill(stream: IO[bytes]) -> None:
        # Differences of whole numbers take half the time and two thirds of the bytes of a dictionary of them.
        encoding = dict.fromkeys(delta, "DELTA_BINARY_PACKED")
        pq.write_table(table, stream, compression="zstd", use_dictionary=others, column_encoding=encoding)

    storage.write_with(name, fill)


def write_parts(storage: Storage, folder: str, table: pa.Table, per_file: int) -> list[tuple[str, int]]:
    """Write a table in files of so many rows, one at least; return their names and rows."""
    first = range(0, max(len(table), 1), per_file)
    parts = {f"{folder}/part-{n:05d}.parquet": table.slice(start, per_file) for n, start in enumerate(first)}
    return write_tables(storage, parts)


def write_tables(storage: Storage, tables: Mapping[str, pa.Table]) -> list[tuple[str, int]]:
    """Write Parquet files, several at a time; return their names and rows."""
    with ThreadPoolExecutor(pa.cpu_count()) as pool:
        list(pool.map(write_table, repeat(storage), tables, tables.values()))
    return [(name, len(table)) for name, table in tables.items()]


def write_array(storage: Storage, name: str, array: np.ndarray) -> None:
    """Write the table `name`.npy, whole or not at all."""
    storage.write_with(f"{name}.npy", lambda stream: np.lib.format.write_array(stream, np.ascontiguousarray(array)))
