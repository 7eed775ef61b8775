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
    with pytest.raises(
        RequestError, match="--only speed: no such part of modalities; there are template, memory, busy"
    ):
        measure(str(tmp_path), ["speed"], lambda _: None)


def test_a_busy_server_is_measured_beside_the_bare_client(tmp_path: Path) -> None:
    rows = measure(str(tmp_path), ["busy"], lambda _: None, asked=128)
    empty, empty_bare, time_ms, bare_ms, client, server = rows
    assert 0 < empty_bare.value < 1
    assert 0 < empty.value < 1
    assert time_ms.limit == bare_ms.limit == pytest.approx(50 / 64)
    # Each of 64 places answers twice, after 50 ms each time.
    assert min(time_ms.value, bare_ms.value) >= 2 * 50 / 128 * 0.9
    assert client.limit is not None
    assert client.value > client.limit > 0
    assert server.value > 0
