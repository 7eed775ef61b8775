"""`rec benchmark NAME` runs and says what it measured; how fast is not tested."""

import json
from pathlib import Path

import pytest

from rec.benchmarks.run import BENCHMARKS
from rec.cli import commands, main
from rec.cli.command import parsed
from rec.data.prepared import Prepared


def test_the_evaluation_benchmark_writes_its_rows(
    planted: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    target = tmp_path / "rows.json"
    assert main(["benchmark", "evaluate", "--data", planted.root, "--json", str(target)]) == 0
    (row,) = json.loads(target.read_text())
    keys = "name value unit limit goal physical limit_spread load ratio met verdict"
    assert row.keys() == set(keys.split())
    assert row["ratio"] == pytest.approx(row["value"] / row["limit"])
    low, high = row["limit_spread"]
    assert low <= row["limit"] <= high
    told = capsys.readouterr().out
    assert "load" in told.splitlines()[0]
    assert row["name"] in told


def test_the_command_line_offers_every_benchmark() -> None:
    for name in BENCHMARKS:
        assert parsed(commands(), ["benchmark", name]).run.keywords["name"] == name
    with pytest.raises(SystemExit):
        parsed(commands(), ["benchmark", "other"])
