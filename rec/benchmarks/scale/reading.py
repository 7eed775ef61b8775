"""Rows of many users read by 1, 2 and 4 ranks of a node, and made into batches.

Processor's time is counted, of all ranks and of the process that reads for them, so that the number of cores and what
else the machine does say little.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rec.batch import Columns
from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import Times, cpu_s, in_turns
from rec.benchmarks.work import Say
from rec.data.prepared import Prepared
from rec.data.stream import Plan, to_columns
from rec.data.writing import Draft
from rec.nn.history import COLUMNS, HistoryBatch, collate
from rec.sections import counted

if TYPE_CHECKING:
    from rec.runtime.members import ActorMembers

AT_ONCE = 1 << 19
ITEMS, SHORTEST, LONGEST = 1_000_000, 5, 35
"""Histories are as likely of any length between these, 20 items in the mean."""
MAX_LENGTH = 50
GOAL = 1 / 0.9
COLLATE_S, COLLATE_REPEATS = 1 / 150_000, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingSize:
    """How much is read, and how."""

    users: int = 10_000_000
    file_rows: int = 4096
    window: int = 65_536
    batch: int = 512
    """Rows per rank and step."""
    ranks: tuple[int, ...] = (1, 2, 4)
    rounds: int = 5
    """Each reads another part of an epoch, together all of it."""

    def bounds(self, part: int) -> tuple[int, int]:
        """Return the first row of an epoch that a round reads and the row after its last: whole steps of all ranks."""
        step = self.batch * max(self.ranks)
        steps = -(-self.users // step)
        first, end = (steps * n // self.rounds * step for n in (part, part + 1))
        return first, min(end, self.users)


FULL = ReadingSize()


def measure(folder: str, say: Say) -> list[Row]:
    """Return the time of reading by several ranks beside one's, and of making batches beside a bare gather."""
    say(f"rows of {counted(FULL.users, 'user')} are written")
    data = written(f"{folder}/data", FULL)
    return [*collating(data, FULL.batch), *reading(data, FULL, say)]


def written(root: str, size: ReadingSize) -> Prepared:
    """Write a data set of users with histories, and return it."""
    rng = np.random.default_rng(0)
    draft, files = Draft(root), []
    for start in range(0, size.users, AT_ONCE):
        table = histories(rng, np.arange(start, min(size.users, start + AT_ONCE)))
        parts = range(0, len(table), size.file_rows)
        files += draft.tables({f"train/part-{start + at:09d}": table.slice(at, size.file_rows) for at in parts})
    splits = {"train": files, "val": files[:1], "test": files[:1]}
    draft.finish({"counts": {"users": size.users}, "modalities": [], "entities": {}, "splits": splits, "config": {}})
    return Prepared.open(root)


def histories(rng: np.random.Generator, user: np.ndarray) -> pa.Table:
    """Return rows of users with random items."""
    length = rng.integers(SHORTEST, LONGEST + 1, len(user))
    offset = np.concatenate([[0], np.cumsum(length)]).astype(np.int32)
    items = rng.integers(1, ITEMS, offset[-1], dtype=np.int32)
    history = pa.ListArray.from_arrays(pa.array(offset), pa.array(items))
    return pa.table({"user": user, "history": history, "target": rng.integers(1, ITEMS, len(user), dtype=np.int32)})


def collating(data: Prepared, batch: int) -> list[Row]:
    """Return the time per user of making batches from tables, beside the aim and a bare gather of the same items."""
    name, _ = data.files("train")[0]
    with data.storage.open(name) as file:
        table = pq.read_table(file).slice(0, batch)
    history = table["history"].combine_chunks()
    values, offset = history.values.to_numpy(), history.offsets.to_numpy()
    place = np.arange(offset[0], offset[-1])
    made, bare = in_turns(
        [partial(_often, lambda: batch_of(to_columns(table))), partial(_often, lambda: values[place])], 7, clock=cpu_s
    )
    each = 1 / (COLLATE_REPEATS * len(table))
    about = f"batch of {counted(len(table), 'user')}, per user"
    return [
        Row(f"{about}, limit: 150,000 users per CPU-second", made.scaled(each).median, "s", COLLATE_S, 1.0),
        timed(f"{about}, limit: the bare gather of their items", made.scaled(each), bare.scaled(each), physical=True),
        Row("users made into batches per CPU-second", 1 / made.scaled(each).median, "1/s"),
    ]


def batch_of(columns: Columns) -> HistoryBatch:
    """Return a batch of histories."""
    return collate(columns, max_length=MAX_LENGTH)


def _often(action: Any) -> None:
    for _ in range(COLLATE_REPEATS):
        action()


def reading(data: Prepared, size: ReadingSize, say: Say) -> list[Row]:
    """Return what ranks on Ray take to read the data set once, alone and with batches made, beside one rank."""
    from rec.runtime.cluster import runtime
    from rec.runtime.members import ActorMembers

    rows = []
    with runtime(1, {"OMP_NUM_THREADS": "1"}):
        members = ActorMembers(_Rank, max(size.ranks), data, size)
        for collates, title in ((False, "read and shuffled"), (True, "read, shuffled and made into batches")):
            spent, bare = _spent(data, size, members, collates, say)
            one = spent[size.ranks[0]]
            rows.append(Row(f"rows {title} per CPU-second, 1 rank", size.users / sum(one.rounds), "1/s"))
            if not collates:
                rows.append(timed("  CPU time, 1 rank, limit: pyarrow that reads and shuffles", one, bare))
            for ranks in size.ranks[1:]:
                rows.append(timed(f"  CPU time, {ranks} ranks, limit: 1 rank", spent[ranks], one, GOAL))
        members.close()
    return rows


def _spent(
    data: Prepared, size: ReadingSize, members: ActorMembers, collates: bool, say: Say
) -> tuple[dict[int, Times], Times]:
    """Return the processor's time of each number of ranks, and of pyarrow alone, for rounds in which they take turns.

    No round finds what another one has decoded: each reads another part, each number of ranks has a reader of its own.
    """
    found: dict[int, list[float]] = {ranks: [] for ranks in size.ranks}
    bare: list[float] = []
    run = uuid.uuid4().hex
    for part in range(size.rounds):
        say(f"part {part + 1} of {size.rounds} of an epoch{', with batches' * collates}, by {size.ranks} ranks")
        for ranks in size.ranks:
            found[ranks].append(_read_part(size, members, ranks, f"{run}-{ranks}", part, collates))
        if not collates:
            bare.append(cpu_s(partial(_bare, data, size, part)))
    members.ask(max(size.ranks), "forget")
    return {ranks: Times(rounds=tuple(rounds)) for ranks, rounds in found.items()}, Times(rounds=tuple(bare))


def _read_part(size: ReadingSize, members: ActorMembers, ranks: int, run: str, part: int, collates: bool) -> float:
    """Return the processor's seconds that ranks and their node's reader take for one part of an epoch."""
    before = max(members.ask(ranks, "reader_s", run))
    found = members.ask(ranks, "read", run, ranks, part, collates)
    after: float = members.ask(1, "reader_s", run)[0]
    first, end = size.bounds(part)
    assert sum(rows for rows, _ in found) == end - first
    return sum(seconds for _, seconds in found) + after - before


class _Rank:
    """Actor that reads as one rank of a training run."""

    def __init__(self, data: Prepared, size: ReadingSize, rank: int) -> None:
        self.data, self.size, self.rank = data, size, rank
        self.readers: dict[str, Any] = {}
        batch_of(to_columns(histories(np.random.default_rng(0), np.arange(4))))

    def reader_s(self, run: str) -> float:
        """Return the processor's seconds that the node's reader of a run has taken so far."""
        return float(self._reader(run).spent()[1])

    def read(self, run: str, ranks: int, part: int, collates: bool) -> tuple[int, float]:
        """Read this rank's rows of a part of an epoch; return how many, and the seconds."""
        rows, reader = 0, self._reader(run)

        def all_of_them() -> None:
            nonlocal rows
            together = self.size.batch * ranks
            first, end = self.size.bounds(part)
            plan = Plan(tuple(self.data.files("train")), together, self.size.window, 0)
            steps = range(first // together, -(-end // together))
            batches = plan.batches(reader, epoch=0, start=steps.start, rank=self.rank, world_size=ranks)
            for _, (columns, counts) in zip(steps, batches, strict=False):
                rows += len(batch_of(columns) if collates else columns["user"]) * counts

        seconds = cpu_s(all_of_them)
        return rows, seconds

    def forget(self) -> None:
        """Let go of all readers, which then end."""
        self.readers.clear()

    def _reader(self, run: str) -> Any:
        from rec.runtime.datasets import StreamingReader

        if run not in self.readers:
            self.readers[run] = StreamingReader(self.data, COLUMNS, run)
        return self.readers[run]


def _bare(data: Prepared, size: ReadingSize, part: int) -> None:
    """Read as many files as a part has, and shuffle windows of them."""
    first, end = (bound // size.file_rows for bound in size.bounds(part))
    names = [data.storage.path(name) for name, _ in data.files("train")[first : max(end, first + 1)]]
    together, rng = size.window // size.file_rows, np.random.default_rng(0)
    for start in range(0, len(names), together):
        table = pa.concat_tables([pq.read_table(name) for name in names[start : start + together]])
        table.take(pa.array(rng.permutation(len(table))))
