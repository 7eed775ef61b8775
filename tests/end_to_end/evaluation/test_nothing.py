"""Averages over nothing: null with a note in training, evaluation, report, comparison and results, and no traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rec.cli import main
from rec.config import RunConfig, from_table, to_toml
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.evaluation.compare import compare
from rec.evaluation.run import evaluate_run
from rec.storage import Storage
from rec.train.job import train_here
from rec.train.narrator import Narrator
from tests.support.own import own_tables


def refuse(word: str) -> None:
    raise AssertionError(f"{word} in JSON")


def run_of(folder: Path, avoid: Any) -> RunConfig:
    """Return a run of users of whom some avoid what every item contains, so that nothing may be shown to them."""
    folder.mkdir()
    sections = own_tables(folder, columns={"contains": "has", "avoid": "not"})
    pd.read_parquet(folder / "items.parquet").assign(has="nut").to_parquet(folder / "items.parquet")
    pd.read_csv(folder / "users.csv").assign(**{"not": avoid}).to_csv(folder / "users.csv", index=False)
    config = from_table(
        {
            "system": "rec.systems.healthmoe:HealthMoE",
            "out": str(folder / "run"),
            "model": {
                "width": 8, "hidden": 8, "out": 8, "user": ["attributes"], "item": ["text"],
                "text": {"width": 8, "layers": 1, "heads": 2},
            },
            "data": {"root": str(folder / "data"), **sections},
            "train": {"batch_size": 8, "epochs": 2, "patience": 1},
            "evaluate": {"bootstrap": 100},
        }
    )  # fmt: skip
    prepare(config.data, InProcess(), lambda _: None)
    return config


def test_everything_is_forbidden_to_everybody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    runs = [run_of(tmp_path / name, "nut") for name in ("a", "b")]
    for config in runs:
        progress = train_here(config, Narrator(said.append), said.append)
        assert (progress.best, progress.best_step) == (None, progress.total_step)
        assert progress.epoch == 2  # nothing to lose patience with
        numbers = evaluate_run(config, "test")
        assert {numbers["metrics"][name] for name in numbers["shown"]} == {None}
        assert any(note.startswith(", ".join(numbers["shown"][:2])) and "no value" in note for note in numbers["notes"])
    assert sum("no example of validation has a value" in line for line in said) == 4
    a, b = (config.out for config in runs)
    assert {row["metric"]: row["difference"] for row in compare(a, b, 100)}["ndcg@10"] is None
    config = tmp_path / "run.toml"
    config.write_text(to_toml(runs[0]))
    for words in (
        ["train", str(config)],
        ["evaluate", str(config)],
        ["evaluate", "--compare", a, b, "--json", str(tmp_path / "c.json")],
        ["report", str(config)],
        ["results", a, b, "--to", str(tmp_path / "pages"), "--name", "x"],
    ):
        assert main(words) == 0, capsys.readouterr().err
    for path in tmp_path.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=refuse)


def test_those_to_whom_everything_is_forbidden_are_left_out_with_a_note(tmp_path: Path) -> None:
    config = run_of(tmp_path / "some", ["nut"] * 3 + [""] * 9)
    train_here(config, lambda _: None, lambda _: None)
    numbers = evaluate_run(config, "test")
    values = Storage(config.out).read_json("evaluation/test/metrics.json")["metrics"]
    assert 0 < values["ndcg@10"] <= 1
    (note,) = [note for note in numbers["notes"] if "left out" in note]
    count, total = (int(word) for word in note.split() if word.isdigit())
    assert 0 < count < total == numbers["examples"]
