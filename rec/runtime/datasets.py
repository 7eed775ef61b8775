"""Prepared files of a split: read once for all workers into shared memory, or once per node for its workers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rec.batch import Column, stored
from rec.data.prepared import Prepared
from rec.data.stream import CachedReader
from rec.data.views.view import SPLITS
from rec.errors import DataError, RecError
from rec.runtime.cluster import living_nodes, quiet_data
from rec.storage import Storage

SHARED_SHARE = 0.3
"""Largest share of a node's object store that shared splits may take."""
SMALL_BYTES = 16 << 20
"""Files of a split up to which the driver reads them by itself: 6 s of processor time less at the start of a run."""
RECENT_SHARE = 0.15
"""Share of a node's object store that holds what its reader has handed out last."""
GROUP_BYTES = 8 << 20
"""Bytes of the files that are handed out together: a call to another process costs as much as some thousand rows."""
GROUPS_AHEAD = 2
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
    """Return whether these splits fit into every node's object store beside everything else: each gets all blocks."""
    # Files are compressed; in memory they take several times as much.
    size = 4 * bytes_of(data, [name for split in splits for name, _ in data.files(split)])
    return size < SHARED_SHARE * min(object_stores().values(), default=0.0)


def bytes_of(data: Prepared, names: Collection[str]) -> int:
    """Return the bytes of some of a data set's files."""
    wanted = set(names)
    return sum(int(entry["bytes"]) for entry in data.manifest["files"] if entry["name"] in wanted)


def object_stores() -> dict[str, float]:
    """Return the bytes of shared memory of every node that is alive, by its id."""
    return {node: there.get("object_store_memory", 0.0) for node, there in living_nodes().items()}


def _store_of(node: str) -> float:
    stores = object_stores()
    return stores.get(node, min(stores.values(), default=0.0))  # one that will be taken away is not among them


def share(data: Prepared, split: str, columns: Sequence[Column]) -> list[Any]:
    """Read a split once and return references to its blocks, in order; they live as long as this process.

    Through Ray Data, or in this process where files are small: Ray Data's own processes would take longer to start.
    """
    names = [name for name, _ in data.files(split)]
    if bytes_of(data, names) <= SMALL_BYTES:
        tables = zip(names, CachedReader(data.storage, columns).read(names), strict=True)
        paths = ((table, pa.repeat(data.storage.path(name), len(table))) for name, table in tables)
        return [ray.put(table.append_column("path", path)) for table, path in paths]
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


class _NodeReader:
    """Actor that decodes files for the workers of its node, once each while they ask for them together."""

    def __init__(self, storage: Storage, columns: Sequence[Column], most_bytes: float) -> None:
        self.reader, self.most_bytes = CachedReader(storage, columns), most_bytes
        self.recent: dict[tuple[str, ...], tuple[Any, int]] = {}
        self.made = 0

    def read(self, names: tuple[str, ...]) -> list[Any]:
        """Return a reference to these files' rows, and how many each file has; in a list, so that no call resolves it.

        The rows are one piece of memory: what it costs a worker to find a table in shared memory grows with its pieces.
        """
        if names not in self.recent:
            tables = list(self.reader.read(names))
            rows = pa.concat_tables(tables).combine_chunks()
            self.recent[names] = ray.put((rows, [len(table) for table in tables])), rows.nbytes
            self.made += 1
            while len(self.recent) > 1 and sum(size for _, size in self.recent.values()) > self.most_bytes:
                del self.recent[next(iter(self.recent))]
        return [self.recent[names][0]]

    def spent(self) -> tuple[int, float]:
        """Return how often files were decoded or copied for workers, and the processor's seconds of this process."""
        return self.made, time.process_time()


NodeReader = ray.remote(num_cpus=0)(_NodeReader)


class StreamingReader:
    """Takes files, some at a time and ahead of their use, from the one process that reads them on this node.

    Every node reads all files, in the planned order: each row's place depends on nothing but the seed. What its workers
    share lies in the node's shared memory, and they copy none of it.
    """

    def __init__(self, data: Prepared, columns: Sequence[Column], run: str) -> None:
        """Find the node's reader, or start it; `run` tells it from those of others, and earlier attempts."""
        self.bytes = {entry["name"]: int(entry["bytes"]) for entry in data.manifest["files"]}
        node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        named = NodeReader.options(name=f"reader-{run}-{node}", get_if_exists=True, scheduling_strategy=here)
        self.actor = named.remote(data.storage, list(columns), RECENT_SHARE * _store_of(node))

    def read(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Yield one table per file, in this order.

        Raises:
            DataError: one cannot be read.
        """
        asked: deque[Any] = deque()
        for group in self._groups(names):
            asked.append(self.actor.read.remote(group))
            if len(asked) > GROUPS_AHEAD:
                yield from _got(asked.popleft())
        while asked:
            yield from _got(asked.popleft())

    def spent(self) -> tuple[int, float]:
        """Return how often the node's reader decoded or copied files for workers, and its processor's seconds."""
        found: tuple[int, float] = ray.get(self.actor.spent.remote())
        return found

    def _groups(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Yield stretches of files that have so many bytes together, the same ones on every worker."""
        group: list[str] = []
        size = 0
        for name in names:
            group.append(name)
            size += self.bytes[name]
            if size >= GROUP_BYTES:
                yield tuple(group)
                group, size = [], 0
        if group:
            yield tuple(group)


def _got(asked: Any) -> Iterator[pa.Table]:
    """Yield the tables that a node's reader was asked for, one per file."""
    try:
        (found,) = ray.get(asked)
        rows, counts = ray.get(found)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, RecError) else error from None
    start = 0
    for count in counts:
        yield rows.slice(start, count)
        start += count


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
    for chunk in table["path"].chunks:
        found = pc.run_end_encode(chunk.cast(pa.string()))
        before = start
        for path, end in zip(found.values.to_pylist(), found.run_ends.to_pylist(), strict=True):
            yield path, rows.slice(start, before + end - start)
            start = before + end
