"""Tests of who is named when all ranks have fallen silent."""

from __future__ import annotations

from typing import Any

import pytest

from rec.runtime.monitor import least_done

STEP = {"kind": "step", "total_step": 10}
WAITING = {"kind": "waiting", "total_step": 10}


@pytest.mark.parametrize(
    ("silent", "rank"),
    [
        ({0: (16.0, STEP), 1: (15.0, STEP | {"total_step": 9})}, 1),
        # Whoever has done its share of an evaluation is not the one that hangs, however long it has been silent.
        ({0: (16.0, WAITING), 1: (15.0, STEP)}, 1),
        ({0: (15.0, STEP), 1: (16.0, WAITING), 2: (15.5, STEP)}, 2),
        ({0: (15.0, STEP), 1: (16.0, STEP)}, 1),
        ({0: (15.0, WAITING), 1: (16.0, WAITING)}, 1),
        ({0: (15.0, STEP), 1: (16.0, {})}, 1),
    ],
)
def test_the_rank_that_did_least_is_named(silent: dict[int, tuple[float, dict[str, Any]]], rank: int) -> None:
    assert least_done(silent) == rank
