"""Prepared files through Ray Data: read once for all workers into shared memory, or streamed by each worker."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import ray
import ray.data

from rec.batch import Column, stored
from rec.data.prepared import Prepared
from rec.data.stream import CachedReader
from rec.data.views.view import SPLITS
from rec.errors import DataError
from rec.runtime.cluster import quiet_data
from rec.storage import Storage

SHARED_SHARE = 0.3
"""Largest share of the cluster's object store that shared splits may take."""
POLL_S = 0.05
OFFER_TIMEOUT_S = 600.0


def open_dataset(storage: Storage, names: Sequence[str], columns: Sequence[str]) -> ray.data.Dataset:
    """Return the rows of these files as one Ray Data set that keeps their order and tells each row's file."""
    quiet_data()
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    return ray.data.read_parquet(
        [storage.path(name) for name in names],
        filesystem=storage.filesystem,
        columns=list(columns),
        include_paths=True,
        override_num_blocks=len(names),
    )


def fits_shared_memory(data: Prepared, splits: Sequence[str]) -> bool:
    """Return whether these splits fit into the cluster's object store beside everything else."""
    names = {name for split in splits for name, _ in data.files(split)}
    # Files are compressed; in memory they take several times as much.
    size = 4 * sum(entry["bytes"] for entry in data.manifest["files"] if entry["name"] in names)
    return bool(size < SHARED_SHARE * ray.cluster_resources().get("object_store_memory", 0))


def share(data: Prepared, split: str, columns: Sequence[Column]) -> list[Any]:
    """Read a split once and return references to its blocks, in order; they live as long as this process."""
    names = [name for name, _ in data.files(split)]
    return list(open_dataset(data.storage, names, stored(columns)).materialize().to_arrow_refs())


class SharedReader(CachedReader):
    """Takes files from blocks that the driver has read once for all workers; what it was not offered it reads itself.

    The driver reads while workers are being placed, and offers the blocks through the monitor.
    """

    def __init__(self, storage: Storage, columns: Sequence[Column], monitor: Any) -> None:
        super().__init__(storage, columns)
        self.monitor = monitor
        self.asked: set[str] = set()

    def read(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Yield one table per file, in this order."""
        split = PurePosixPath(names[0]).parent.name if names else ""
        if split in SPLITS and split not in self.asked:
            self.asked.add(split)
            blocks = ray.get(self._offered(split))
            for path, table in _files(iter(blocks)):
                self.cache[path.removeprefix(f"{self.storage.root}/")] = table
        yield from super().read(names)

    def _offered(self, split: str) -> list[Any]:
        deadline_s = time.monotonic() + OFFER_TIMEOUT_S
        while time.monotonic() < deadline_s:
            blocks: list[Any] | None = ray.get(self.monitor.offered.remote(split))
            if blocks is not None:
                return blocks
            time.sleep(POLL_S)
        raise DataError(f"{self.storage.uri}: split {split!r} was not read within {OFFER_TIMEOUT_S:.0f} s")


class StreamingReader(CachedReader):
    """Streams files through Ray Data in the planned order and keeps them while they fit in memory.

    Every worker streams the whole window and takes its rows from it: what is read over the network grows with the
    number of workers, and in return each row's place depends on nothing but the seed.
    """

    def _load(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Yield one table per file that is not in memory."""
        dataset = open_dataset(self.storage, names, self.columns)
        blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)
        for _, table in _files(iter(blocks)):
            yield table


def _files(blocks: Iterator[pa.Table]) -> Iterator[tuple[str, pa.Table]]:
    """Yield (path, rows) of each file that the blocks hold, in order; a file may span blocks and a block files."""
    held: list[pa.Table] = []
    current = ""
    for block in blocks:
        for path, part in _runs(block):
            if held and path != current:
                yield current, pa.concat_tables(held)
                held = []
            current = path
            held.append(part)
    if held:
        yield current, pa.concat_tables(held)


def _runs(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield the stretches of a table that come from one file, without the column that tells."""
    rows = table.drop_columns(["path"])
    start = 0
    for path, run in itertools.groupby(table["path"].to_pylist()):
        length = sum(1 for _ in run)
        yield path, rows.slice(start, length)
        start += length
