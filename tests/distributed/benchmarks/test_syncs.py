"""`rec benchmark scale --only syncs`: every goal is met, with two processes too."""

from __future__ import annotations

from typing import Any

import pytest

from rec.benchmarks import scale
from rec.benchmarks.scale import syncs


def counted(rank: int, world: int, size: int) -> dict[str, dict[str, int]]:
    return {str(layers): syncs.counts_of(layers, size, rank) for layers in syncs.LAYERS}


def values(name: str, counts: dict[str, dict[str, int]]) -> dict[str, float]:
    """Return the rows' values by their names, none of which misses its goal."""
    found = syncs.rows_of(name, counts)
    assert [(row.name, row.value, row.goal) for row in found if row.met is False] == []
    return {row.name.split(": ")[1]: row.value for row in found}


def test_one_process_stays_below_its_ceilings() -> None:
    assert "syncs" in scale.PARTS
    found = values("1 process", {str(layers): syncs.counts_of(layers, None, 0) for layers in syncs.LAYERS})
    assert found["waits of a mixture layer"] == 1
    assert found["collectives, 2 mixture layers"] == 0
    assert found["operations, 2 mixture layers"] > 200


@pytest.mark.ray
@pytest.mark.parametrize(("name", "size"), list(syncs.WAYS.items()))
def test_two_processes_stay_below_their_ceilings(ranks: Any, name: str, size: int) -> None:
    pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
    found = values(name, ranks.run(2, counted, size)[0])
    assert found["waits of a mixture layer"] == 1
    assert found["collectives of a mixture layer"] == (4 if size == 2 else 0)
