"""Where a run comes from: its data's name, its cost, and commands that can be typed."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rec.config import RunConfig, load
from rec.report.origin import NO_FILE, Origin, data_name

CONFIG = """
system = "rec.systems.msmrec:MSMRec"
out = "out/run"
[data]
root = "out/mine/data"
[data.read]
records = ["a.csv"]
"""
MACHINE = {"cpu": "a CPU", "cores": 1, "memory_bytes": 3 * 2**30, "gpu": None}


def command_of(seconds: float, peak: int, workers: int = 2) -> dict[str, Any]:
    return {"seconds": seconds, "peak_memory_bytes": peak, "workers": workers, "machines": [MACHINE]}


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Origin]:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(CONFIG)
    Path("mine.toml").write_text(CONFIG)

    def make(config: RunConfig | None = None, **changes: Any) -> Origin:
        config = config or load("mine.toml")
        cost = {"seconds": 125.0, "whole": True, "peak_memory_bytes": 512 * 2**20, "commands": [command_of(125, 1)]}
        keys: dict[str, Any] = {
            "config": config,
            "folder": config.out,
            "seeds": [0],
            "split": "test",
            "training": {
                "file": "mine.toml",
                "changes": {},
                "data": {"counts": {"users": 1, "items": 1682, "interactions": 100000, "rows": 7}},
            },
            "costs": [cost],
            "measurements": [{"seconds": 4.0, "parameters": 72896}],
        }
        return Origin(**keys | changes)

    return make


def test_the_commands_can_be_typed(origin: Callable[..., Origin]) -> None:
    assert origin().command().splitlines() == [
        "rec prepare mine.toml",
        "rec train mine.toml",
        "rec evaluate mine.toml",
        "rec report mine.toml",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.texts", "shuffled"),
        ("train.epochs", 3),
        ("train.learning_rate", 1e-05),
        ("data.read.keep", ["year", "a b"]),
        ("data.read.delimiter", ";"),
        ("data.text.encoder", "1"),
        ("train.validate", True),
        ("data.read.records", ["it's $HOME.csv"]),
    ],
)
def test_changes_come_back_as_they_were(origin: Callable[..., Origin], key: str, value: Any) -> None:
    from rec.config import _put

    told = origin(training={"file": "mine.toml", "changes": {key: value}, "data": {}})
    words = shlex.split(told.command().splitlines()[1])
    assert words[:3] == ["rec", "train", "mine.toml"]
    table: dict[str, Any] = {}
    _put(table, words[3])
    for name in key.split("."):
        table = table[name]
    assert table == value


def test_places_seeds_and_splits_are_part_of_the_commands(origin: Callable[..., Origin]) -> None:
    moved = load("mine.toml", ["out=elsewhere/run", "train.seed=4"])
    assert origin(moved, seeds=[4]).command().splitlines()[1] == "rec train mine.toml out=elsewhere/run train.seed=4"
    several = origin(seeds=[0, 1, 2], split="val").command().splitlines()
    assert several[1:3] == ["rec train mine.toml --seeds 3", "rec evaluate mine.toml --seeds 3 --split val"]


def test_shortened_folders_are_said_to_be_shortened(origin: Callable[..., Origin]) -> None:
    assert origin().command_does() == "To repeat this:"
    assert origin(load("mine.toml", ["out=out"])).command_does() == "To repeat this:"
    far = load("mine.toml", ["out=/far/away/run"])
    assert "shortened to their last part" in origin(far).command_does()


def test_a_run_without_a_file_tells_where_its_config_is(origin: Callable[..., Origin]) -> None:
    told = origin(training=None).command().splitlines()
    assert told[0] == f"# {NO_FILE} holds the config at the end of this page"
    assert told[1] == f"rec prepare {NO_FILE}"


def test_cost_and_data_are_told_in_words(origin: Callable[..., Origin]) -> None:
    told = origin()
    assert told.data() == "mine: 1 user, 1,682 items, 100,000 interactions"
    assert told.cost() == ["Training took 2 min 05 s and 512 MiB of memory, measuring 4 s."]
    assert told.facts() == [("model", "72,896 parameters"), ("trained on", "2 workers on a CPU, 1 core, 3.0 GiB")]
    partly = origin(costs=[{"seconds": 60.0, "whole": False, "commands": []}] * 2, measurements=[])
    assert partly.cost() == ["Training took at least 1 min 00 s per seed."]
    assert origin(costs=[], measurements=[]).cost() == []
    assert origin(costs=[], measurements=[{"seconds": 0.4}]).cost() == ["Measuring took less than 1 s."]


def test_no_whole_path_stands_on_a_page(origin: Callable[..., Origin], tmp_path: Path) -> None:
    other = load("mine.toml", ["out=/far/away/out/run", f"data.root={tmp_path}/out/mine/data"])
    code = origin(other, folder="/far/away/out/run").config_section().parts[1]
    assert 'root = "out/mine/data"' in code.text
    assert 'out = "run"' in code.text
    assert "/far" not in origin(other, folder="/far/away/out/run").command()


@pytest.mark.parametrize(
    ("root", "name"),
    [
        ("/a/b/out/ml-1m/data", "ml-1m"),
        ("out/demo/data/", "demo"),
        ("s3://bucket/films", "films"),
        ("/data", "/data"),
        ("data", "data"),
    ],
)
def test_data_have_a_name(origin: Callable[..., Origin], root: str, name: str) -> None:
    assert data_name(load("mine.toml", [f"data.root={root}"])) == name
