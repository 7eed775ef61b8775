"""`rec benchmark scale` runs the parts that it is asked for."""

from pathlib import Path

import pytest
import torch

from rec.benchmarks import scale
from rec.benchmarks.parts import chosen
from rec.benchmarks.scale import entropy, ranking, tables
from rec.cli import main
from rec.errors import RequestError


def test_parts_are_run_in_their_order_each_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "PARTS", ("one", "two", "three"))
    assert chosen("scale", scale.PARTS, ()) == ["one", "two", "three"]
    assert chosen("scale", scale.PARTS, ("three", "one")) == ["one", "three"]
    with pytest.raises(RequestError, match="--only four: no such part of scale; there are one, two, three"):
        chosen("scale", scale.PARTS, ("four", "one"))


def test_a_benchmark_without_parts_refuses_a_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "moe", "--only", "one"]) != 0
    assert "moe has no parts" in capsys.readouterr().err


def test_entropy_tells_times_and_memory_of_each_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entropy, "ITEMS", (50, 5000))
    monkeypatch.setattr(entropy, "REPEATS", 1)
    rows = entropy.measure(str(tmp_path), lambda _: None)
    assert [row.unit for row in rows] == ["s", "bytes", "s", "s"] * 2
    assert all(row.limit and row.value > 0 for row in rows)
    assert [row.met for row in rows if row.unit == "bytes"] == [True, True]
    assert {name.partition(",")[0] for name in (row.name for row in rows) if "Rec" in name} == {
        "SASRec",
        "MSMRec with 3 texts",
    }


def test_ranking_tells_the_time_of_all_users_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ITEMS", 40_000), ("SAMPLE", 20), ("USERS", 2000), ("REPEATS", 1)):
        monkeypatch.setattr(ranking, name, value)
    time, memory = ranking.measure(str(tmp_path), lambda _: None)
    assert time.value > 0
    assert memory.met
    assert "40,000 items x 64 for 2,000 users (20 measured)" in time.name


def test_the_bare_ranking_finds_the_best_items() -> None:
    query_BD, item_ID = torch.randn(3, 4), torch.randn(2 * ranking.BLOCK + 5, 4)
    item_BK, value_BK = ranking.bare(query_BD, item_ID)
    torch.testing.assert_close(value_BK, (query_BD @ item_ID.T).topk(ranking.TOP, dim=1).values)
    torch.testing.assert_close((query_BD[:, None] * item_ID[item_BK]).sum(-1), value_BK)


@pytest.mark.ray
def test_tables_tell_memory_and_steps_of_two_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psutil", reason="needs the extra `cluster`")
    for name, value in (("LARGE", 1_000_000), ("SMALL", 1000), ("LOOKUPS", 64), ("STEPS", 2)):
        monkeypatch.setattr(tables, name, value)
    memory, step, moved = tables.measure(str(tmp_path), lambda _: None)
    table = 4 * 1_000_000 * (tables.WIDTH + 1)
    assert memory.limit is not None
    assert memory.limit > 0.9 * table
    assert memory.value < memory.limit
    assert step.value > 0
    assert moved.value <= 4 * 2 * 64 * tables.WIDTH
