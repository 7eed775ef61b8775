"""The order of rows: every row once, whatever the ranks and wherever a run goes on."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rec.batch import Column
from rec.data.stream import CachedReader, Plan, to_columns
from rec.data.writing import write_table
from rec.seeds import generator
from rec.storage import Storage

SIZES = (7, 1, 12, 5, 9, 3)
ROWS = sum(SIZES)


@pytest.fixture
def reader(tmp_path: Path) -> CachedReader:
    storage, start = Storage(str(tmp_path)), 0
    for i, size in enumerate(SIZES):
        user = np.arange(start, start + size)
        write_table(storage, f"f{i}", pa.table({"user": user, "history": [[int(u)] * (u % 3 + 1) for u in user]}))
        start += size
    return CachedReader(storage, [Column("user", "int64"), Column("history", "int32", (-1,))])


def plan(batch: int, window: int) -> Plan:
    return Plan(tuple((f"f{i}", size) for i, size in enumerate(SIZES)), batch, window, seed=3)


def users(p: Plan, reader: CachedReader, epoch: int, start: int, world: int) -> list[list[int]]:
    """The users of each step, over all ranks."""
    ranks = [list(p.batches(reader, epoch=epoch, start=start, rank=r, world_size=world)) for r in range(world)]
    assert len({len(r) for r in ranks}) == 1
    return [
        [int(u) for columns, counts in step if counts for u in columns["user"]] for step in zip(*ranks, strict=True)
    ]


@pytest.mark.parametrize("window", [0, 1, 4, 10, 1000])
@pytest.mark.parametrize("batch", [1, 4, 6, 37, 100])
def test_every_row_once_per_epoch_on_any_number_of_ranks(reader: CachedReader, batch: int, window: int) -> None:
    p = plan(batch, window)
    for world in (1, 2, 3):
        steps = users(p, reader, 1, 0, world)
        assert len(steps) == p.steps
        assert sorted([u for step in steps for u in step]) == list(range(ROWS))
        assert steps == users(p, reader, 1, 0, 1)


@pytest.mark.parametrize("window", [0, 4, 10, 1000])
def test_a_run_goes_on_at_any_step(reader: CachedReader, window: int) -> None:
    p = plan(4, window)
    whole = users(p, reader, 2, 0, 1)
    for start in range(p.steps + 1):
        assert users(p, reader, 2, start, 2) == whole[start:]


@pytest.mark.parametrize(("batch", "window"), [(4, 10), (10, 4), (6, 1), (5, 1000)])
def test_the_order_is_that_of_whole_windows_of_shuffled_files(reader: CachedReader, batch: int, window: int) -> None:
    p = plan(batch, window)
    files = generator(3, "files", 1).permutation(len(SIZES))
    first = np.cumsum([0, *SIZES])
    line = np.concatenate([np.arange(first[f], first[f + 1]) for f in files])
    wanted: list[int] = []
    for number, start in enumerate(range(0, ROWS, window)):
        some = line[start : start + window]
        wanted += some[generator(3, "window", 1, number).permutation(len(some))].tolist()
    assert [u for step in users(p, reader, 1, 0, 3) for u in step] == wanted


@pytest.mark.parametrize(("batch", "window"), [(6, 10), (12, 0), (12, 1000)])
def test_a_rank_gathers_its_own_rows_alone(reader: CachedReader, batch: int, window: int) -> None:
    p = plan(batch, window)
    for world in (1, 2, 3):
        gathered = 0
        for rank in range(world):
            first_S, end_S, counts_S = p._parts(1, rank, world)
            own = sum(len(table) for table in p._own(reader, 0, first_S, end_S))
            assert own == (end_S - first_S).sum()
            gathered += own - int((~counts_S).sum())
        assert gathered == ROWS - batch


def test_epochs_differ_and_repeat(reader: CachedReader) -> None:
    p = plan(6, 10)
    assert users(p, reader, 0, 0, 1) == users(p, reader, 0, 0, 1)
    assert users(p, reader, 0, 0, 1) != users(p, reader, 1, 0, 1)
    assert [u for step in users(plan(6, 0), reader, 5, 0, 1) for u in step] == list(range(ROWS))


def test_a_rank_without_rows_gets_a_stand_in(reader: CachedReader) -> None:
    p = plan(12, 0)  # 37 rows: the last step has one
    last = [next(p.batches(reader, epoch=0, start=3, rank=r, world_size=3)) for r in range(3)]
    assert [counts for _, counts in last] == [False, False, True]
    assert all(len(columns["user"]) == 1 for columns, _ in last)


def test_ragged_columns_survive(reader: CachedReader) -> None:
    for columns, _ in plan(5, 8).batches(reader, epoch=0, start=0, rank=0, world_size=1):
        for user, history in zip(columns["user"], columns["history"], strict=True):
            assert history.tolist() == [user] * (user % 3 + 1)


def test_columns_of_a_table_are_its_rows_whatever_its_pieces() -> None:
    nested = [[[1, 2], []], [], [[3]], [[4], [5, 6]]]
    values = {"number": [1, 2, 3, 4], "list": [[1], [], [2, 3], [4]], "words": [["a"], [], ["b", ""], []]}
    whole = pa.table({**values, "nested": pa.array(nested, pa.list_(pa.list_(pa.int64())))})
    for table in (whole, whole.slice(1, 2), pa.concat_tables([whole.slice(2), whole.slice(0, 3)])):
        found = to_columns(table)
        assert found["number"].tolist() == table["number"].to_pylist()
        assert [row.tolist() for row in found["list"]] == table["list"].to_pylist()
        assert [row.tolist() for row in found["words"]] == table["words"].to_pylist()
        assert [[part.tolist() for part in row] for row in found["nested"]] == table["nested"].to_pylist()
