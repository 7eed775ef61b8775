"""What ranks take to read, and what making batches takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rec.benchmarks.scale import reading

SMALL = reading.ReadingSize(users=5000, file_rows=512, window=1024, batch=100, ranks=(1, 2), rounds=2)


def test_the_data_set_holds_every_user_once(tmp_path: Path) -> None:
    data = reading.written(str(tmp_path), SMALL)
    rows = data.rows("train")
    assert rows["user"].to_pylist() == list(range(5000))
    assert {size for _, size in data.files("train")} == {512, 5000 - 9 * 512}
    lengths = np.diff(rows["history"].combine_chunks().offsets.to_numpy())
    assert (lengths.min(), lengths.max()) == (reading.SHORTEST, reading.LONGEST)
    parts = [SMALL.bounds(part) for part in range(2)]
    assert [first for first, _ in parts] == [0, parts[0][1]]
    assert parts[1][1] == 5000


def test_batches_are_measured_beside_the_aim_and_a_gather(tmp_path: Path) -> None:
    aim, beside, speed = reading.collating(reading.written(str(tmp_path), SMALL), 100)
    assert (aim.limit, aim.goal) == (1 / 150_000, 1.0)
    assert aim.value == beside.value == pytest.approx(1 / speed.value)
    assert beside.physical
    assert beside.limit is not None
    assert 0 < beside.limit < beside.value


@pytest.mark.ray
@pytest.mark.slow
def test_ranks_on_ray_read_every_row(ray_runtime: None, tmp_path: Path) -> None:
    data = reading.written(str(tmp_path), SMALL)
    rows = reading.reading(data, SMALL, lambda _: None)
    assert [row.goal for row in rows] == [None, None, reading.GOAL, None, reading.GOAL]
    assert all(row.value > 0 for row in rows)
