"""A run's folder tells its config wherever it is opened from, and lets one command at a time train."""

import os
from pathlib import Path

import pytest

from rec.config import load, to_json
from rec.errors import ConfigError
from rec.evaluation.run import load_run
from rec.run_folder import alone, recorded
from rec.storage import Storage

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "rec" / "configs" / "demo.toml")


def folder_of(tmp_path: Path, *overrides: str) -> Path:
    """Write the config of a run into `out/run` below a folder."""
    folder = tmp_path / "out" / "run"
    folder.mkdir(parents=True, exist_ok=True)
    config = load(DEMO, ["out=out/run", "data.root=out/data", *overrides])
    (folder / "config.json").write_text(to_json(config))
    return folder


def test_data_are_found_from_another_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert recorded(Storage(str(folder))).data.root == str(tmp_path / "out" / "data")
    assert load_run(str(folder), []).data.root == str(tmp_path / "out" / "data")
    assert load_run("../out/run", []).data.root == str(tmp_path / "out" / "data")
    assert load_run(str(folder), ["data.root=mine"]).data.root == "mine"
    monkeypatch.chdir(tmp_path)
    assert recorded(Storage("out/run")).data.root == "out/data"


def test_what_was_moved_or_is_absolute_stays_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path)
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert recorded(Storage(str(moved))).data.root == "out/data"
    folder = folder_of(tmp_path, "data.root=/somewhere/data")
    monkeypatch.chdir(tmp_path / "out")
    assert recorded(Storage(str(folder))).data.root == "/somewhere/data"


@pytest.mark.parametrize("text", ['{"system": "rec.sys', "\x00", ""])
def test_a_damaged_config_is_told(tmp_path: Path, text: str) -> None:
    folder = folder_of(tmp_path)
    (folder / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"run/config\.json: not the config of a run .*restore the file"):
        load_run(str(folder), [])


def test_one_command_at_a_time_trains_in_a_folder(tmp_path: Path) -> None:
    folder = str(tmp_path / "out" / "run")
    with alone(folder):
        with pytest.raises(ConfigError, match=r"out: another command trains in .*run right now"), alone(folder):
            pass
        with alone(f"{folder}/trials/1"):
            pass
    with alone(folder):
        assert os.listdir(folder) == ["trials"]
