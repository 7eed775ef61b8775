"""`rec benchmark scale` runs the parts that it is asked for."""

from pathlib import Path

import pytest

from rec.benchmarks import scale
from rec.benchmarks.scale import entropy
from rec.cli import main
from rec.errors import RequestError


def test_parts_are_run_in_their_order_each_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "PARTS", ("one", "two", "three"))
    assert scale.chosen(()) == ["one", "two", "three"]
    assert scale.chosen(("three", "one")) == ["one", "three"]
    with pytest.raises(RequestError, match="--only four: no such part of scale; there are one, two, three"):
        scale.chosen(("four", "one"))


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
