"""A data set four times as large as an object store, read by every node into training: what that does to memory."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from rec.benchmarks.cluster.bench import RATE, Bench
from rec.benchmarks.cluster.counters import WORKER, kind_of
from rec.benchmarks.cluster.metrics import addresses, shown
from rec.benchmarks.cluster.training import CPUS_PER_WORKER, LIMIT_S, run_on
from rec.benchmarks.row import Row
from rec.benchmarks.work import Say
from rec.config import RunConfig, to_json
from rec.data.config import DataConfig
from rec.data.prepared import Prepared
from rec.data.writing import Draft
from rec.moe.config import MixtureConfig
from rec.runtime.local_cluster import LocalCluster, Shape, running
from rec.sections import counted
from rec.systems.msmrec.config import MSMRecConfig
from rec.train.config import ParallelConfig, TrainConfig

MIB, GIB = 1 << 20, 1 << 30
TIMES = 4
STORES = (2 * GIB, 1 * GIB, 512 * MIB, 256 * MIB)
BESIDE = 1.5 * GIB
"""What a node takes beside its object store: Ray's processes, a worker, the reader and what it decodes."""
LENGTH, FILE_ROWS, ITEMS = 8192, 128, 1000
"""Items of a history, of which the model reads the last: large rows, so that bytes and not steps take the time."""
BATCH = 64
MODEL = MSMRecConfig(
    gate="none",
    loss="ce",
    width=16,
    blocks=1,
    max_length=8,
    feedforward_mixture=MixtureConfig(experts=2, per_row=1),
)
GROWTH_GOAL, SPILL_GOAL = 1.2, 0.0
EVERY_S = 1.0
STORE, SPILLED = "ray_object_store_memory", "ray_spill_manager_objects_bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamingSize:
    """How large the experiment is."""

    nodes: int = 4
    store: int
    times: int = TIMES
    """How many times an object store the data set is, in memory."""

    @property
    def rows(self) -> int:
        """Rows of the data set: whole batches of all workers."""
        step = BATCH * self.nodes
        return self.times * self.store // (4 * LENGTH) // step * step


@dataclass(slots=True)
class Watched:
    """What was seen while a run went on."""

    store: list[float] = field(default_factory=list)
    """Largest share of a node's object store that was in use, by time."""
    spilled: float = 0.0
    """Most bytes that lay on disks for want of room."""
    memory: list[float] = field(default_factory=list)
    """Bytes of their own of the largest worker or reader, by time, once steps are made."""
    names: set[str] = field(default_factory=set)
    """Names of all metrics that nodes have shown."""


def measure(bench: Bench) -> list[Row]:
    """Return the rows of the largest object stores that this machine has memory for."""
    nodes, free = 4, psutil.virtual_memory().available
    store = next((store for store in STORES if nodes * (store + BESIDE) < free), STORES[-1])
    return streamed(f"{bench.folder}/streaming", bench.name, StreamingSize(nodes=nodes, store=store), bench.say)


def streamed(folder: str, name: str, size: StreamingSize, say: Say) -> list[Row]:
    """Return object-store use, spilled bytes and memory of a run that streams its data set once."""
    say(f"a data set of {size.times * size.store / MIB:.0f} MiB in memory is written")
    data = written(f"{folder}/data", size.rows)
    with running(name, Shape(nodes=size.nodes, cpus=2, store_bytes=size.store, rate=RATE)) as cluster:
        say(f"{counted(size.nodes, 'node')} of {size.store / MIB:.0f} MiB of object store each train on it")
        return rows_of(size, *trained_on(cluster, data, Path(folder)))


def rows_of(size: StreamingSize, watched: Watched, seconds: float) -> list[Row]:
    """Return the rows of what was watched."""
    quarter = len(watched.memory) // 4  # in the first, buffers fill
    parts = (watched.memory[quarter : 2 * quarter], watched.memory[2 * quarter :])
    early, late = (max(part, default=0.0) for part in parts)
    told = f"{counted(size.nodes, 'node')} of {size.store / MIB:.0f} MiB of object store"
    text = f"{told}: bytes through each node's store, limit: the store"
    return [
        Row(text, size.rows * LENGTH * 4, "B", float(size.store)),
        Row("  largest share of a store in use", max(watched.store, default=0.0), "", goal=1.0),
        Row("  bytes spilled to disks", watched.spilled, "B", goal=SPILL_GOAL),
        Row(
            "  memory of the largest process, second half of training, limit: second quarter",
            late,
            "B",
            early,
            GROWTH_GOAL,
        ),
        Row("  the run, from its command to its end", seconds, "s"),
        Row("  bytes read into training per second, all nodes", size.nodes * size.rows * LENGTH * 4 / seconds, "B/s"),
    ]


def written(root: str, rows: int) -> Prepared:
    """Write a data set of long random histories, and return it."""
    rng, draft, files = np.random.default_rng(0), Draft(root), []
    for start in range(0, rows, FILE_ROWS):
        files += draft.tables({f"train/part-{start:09d}": histories(rng, start, min(FILE_ROWS, rows - start))})
    draft.array("item_count", np.ones(ITEMS + 1, dtype=np.int64))
    draft.table("item", pa.table({"id": [str(item) for item in range(1, ITEMS + 1)]}))
    entities = {"item": {"count": ITEMS, "first": 1}}
    splits = {"train": files, "val": files[:1], "test": files[:1]}
    told = {"counts": {"users": rows, "items": ITEMS}, "modalities": [], "entities": entities, "splits": splits}
    draft.finish(told | {"config": {}})
    return Prepared.open(root)


def histories(rng: np.random.Generator, first: int, rows: int) -> pa.Table:
    """Return rows of users with random items."""
    offsets = np.arange(0, (rows + 1) * LENGTH, LENGTH, dtype=np.int32)
    items = rng.integers(1, ITEMS, rows * LENGTH, dtype=np.int32)
    return pa.table(
        {
            "user": np.arange(first, first + rows),
            "history": pa.ListArray.from_arrays(pa.array(offsets), pa.array(items)),
            "target": rng.integers(1, ITEMS, rows, dtype=np.int32),
        }
    )


def trained_on(cluster: LocalCluster, data: Prepared, folder: Path) -> tuple[Watched, float]:
    """Train one epoch with a worker per node; return what was seen meanwhile, and the seconds.

    Raises:
        TrainingError: the run failed.
    """
    workers, start_s = cluster.shape.nodes, time.monotonic()
    config = RunConfig(
        system="rec.systems.msmrec:MSMRec",
        out=str(folder / "run"),
        model=MODEL,
        data=DataConfig(root=data.root),
        train=TrainConfig(batch_size=BATCH * workers, epochs=1, shuffle_window=8 * FILE_ROWS),
        parallel=ParallelConfig(workers=workers, cpus_per_worker=CPUS_PER_WORKER),
    )
    (folder / "config.json").write_text(to_json(config))
    events = folder / "events"
    words = ["rec.benchmarks.cluster.driver", str(folder / "config.json"), str(events)]
    with watching(cluster, lambda: events.exists() and b'"kind": "step"' in events.read_bytes()) as watched:
        run_on(cluster, words, folder / "log", limit_s=3 * LIMIT_S)
    return watched, time.monotonic() - start_s


@contextlib.contextmanager
def watching(cluster: LocalCluster, trains: Callable[[], bool]) -> Iterator[Watched]:
    """Watch object stores of a cluster inside, and its processes from when it trains: before, they only grow."""
    watched, ended = Watched(), threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY_S):
            _look(cluster, watched)
            if watched.memory or trains():
                watched.memory.append(_largest(cluster))

    thread = threading.Thread(target=watch, daemon=True, name="watch")
    thread.start()
    try:
        yield watched
    finally:
        ended.set()
        thread.join()


def _look(cluster: LocalCluster, watched: Watched) -> None:
    """Take note of how things are now."""
    pages = [shown(address) for address in addresses(cluster)]
    watched.names |= {name for page in pages for name, _, _ in page}
    shares = [
        sum(value for name, labels, value in page if name == STORE and labels.get("Location") != "SPILLED")
        for page in pages
    ]
    watched.store.append(max(shares, default=0.0) / cluster.shape.store_bytes)
    spilled = [value for page in pages for name, labels, value in page if _is_spilled(name, labels)]
    watched.spilled = max(watched.spilled, *spilled, 0.0)


def _largest(cluster: LocalCluster) -> float:
    """Return the bytes of its own of the largest process that trains or reads."""
    spaces = [cluster.links.namespace(node) for node in range(cluster.shape.nodes)]
    return max((own_bytes(pid) for space in spaces for pid in cluster.links.pids(space)), default=0.0)


def _is_spilled(name: str, labels: Mapping[str, str]) -> bool:
    return (name == SPILLED and labels.get("State") == "Spilled") or (
        name == STORE and labels.get("Location") == "SPILLED"
    )


def own_bytes(pid: int) -> float:
    """Return the memory of a worker or a reader that it shares with nobody; 0 of other processes."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        if kind_of(pid) == WORKER or b"NodeReader" in words:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    return float(line.split()[1]) * 1024
    return 0.0
