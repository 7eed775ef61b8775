"""The benchmark of writing modalities, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from rec.benchmarks.modalities import measure
from rec.errors import RequestError


def test_a_failing_server_a_budget_and_a_kill_are_measured(tmp_path: Path) -> None:
    rows = measure(str(tmp_path), ["failing", "budget", "killed"], lambda _: None, asked=200)
    found = {row.name.split(",")[0]: row for row in rows}
    assert 1.0 < found["requests per item of a server that fails 20 % of them"].value < 1.5
    assert found["items that were not written"].met
    assert found["tokens that were spent"].met
    assert found["items that are answered twice after a kill at half"].value == 0
    assert found["items without an answer"].value == 0


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="'speed' is no part of modalities; there are template, memory, busy"):
        measure(str(tmp_path), ["speed"], lambda _: None)
