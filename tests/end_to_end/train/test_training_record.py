"""What a run's folder tells of its training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rec.config import RunConfig, load, to_toml
from rec.data.prepared import Prepared
from rec.storage import Storage
from rec.train.job import train_here
from rec.train.training_record import TrainingRecord, changes, read_training, told_file, without_folders

Make = Callable[..., RunConfig]


class Stop(Exception):
    """Ends a run."""


def quiet(_: Any) -> None:
    """Say nothing."""


def stop_at_saved(count: int) -> Callable[[dict[str, Any]], None]:
    """Return what ends a run once it has saved so many checkpoints."""
    saved: list[int] = []

    def report(event: dict[str, Any]) -> None:
        saved.extend([1] if event["kind"] == "saved" else [])
        if len(saved) == count:
            raise Stop

    return report


def record_of(config: RunConfig) -> dict[str, Any]:
    found = read_training(Storage(config.out))
    assert found is not None
    return found


def test_a_run_records_what_made_it(run_config: Make, planted: Prepared) -> None:
    config = run_config(train={"epochs": 1})
    train_here(config, quiet, quiet)
    found = record_of(config)
    (command,) = found["commands"]
    assert found["end"]["over"]
    assert (found["end"]["epoch"], found["end"]["epochs"], command["start_step"], command["step"]) == (1, 1, 0, 10)
    assert command["seconds"] > 0
    assert command["peak_memory_bytes"] > 2**26
    assert command["machines"][0]["cores"] >= 1
    assert {"version", "commit", "dirty"} == set(command["code"])
    assert found["data"]["counts"] == planted.manifest["counts"]
    assert found["changes"]["model.width"] == 16
    text = json.dumps(found)
    assert config.out not in text
    assert config.data.root not in text


def test_a_run_that_was_stopped_has_an_entry_per_command(run_config: Make) -> None:
    config = run_config(train={"epochs": 2})
    with pytest.raises(Stop):
        train_here(config, stop_at_saved(1), quiet)
    assert not record_of(config)["end"]["over"]
    assert record_of(config)["end"]["epoch"] == 1
    train_here(config, quiet, quiet)
    found = record_of(config)
    assert [(c["start_step"], c["step"]) for c in found["commands"]] == [(0, 10), (10, 20)]
    assert found["end"]["over"]
    train_here(config, quiet, quiet)
    assert record_of(config) == found


def test_a_run_that_starts_afresh_forgets_the_one_before(run_config: Make) -> None:
    config = run_config(train={"epochs": 1})
    train_here(config, quiet, quiet)
    Storage(config.out).delete("checkpoints")
    train_here(config, quiet, quiet)
    assert [c["start_step"] for c in record_of(config)["commands"]] == [0]


def test_peaks_are_summed_over_ranks_and_machines_told_by_them(run_config: Make, planted: Prepared) -> None:
    config = run_config(parallel={"workers": 2})
    record = TrainingRecord(Storage(config.out), config, planted.manifest, quiet)
    for rank, size in ((0, 300), (1, 500), (0, 200)):
        record({"kind": "imported", "rank": rank, "machine": {"cpu": f"of rank {rank}"}})
        record({"kind": "saving", "rank": rank, "total_step": 4, "peak_memory_bytes": size})
    record({"kind": "saved", "rank": 0, "total_step": 4})
    (command,) = record_of(config)["commands"]
    assert command["peak_memory_bytes"] == max(300, 200) + 500
    assert command["machines"] == [{"cpu": "of rank 0"}, {"cpu": "of rank 1"}]
    assert command["workers"] == 2


def test_changes_are_those_to_the_file(run_config: Make, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(run_config()))
    words = ["out=elsewhere", "train.seed=3", "model.gate=none", "train.epochs=7", "tune.trials=3"]
    assert changes(load(path, words), str(path)) == {"model.gate": "none", "train.epochs": 7}
    assert changes(load(path), str(path)) == {}
    assert changes(load(path))["train.learning_rate"] == 5e-3


def test_no_folder_of_somebody_is_told(tmp_path: Path) -> None:
    assert told_file(str(Path(__file__).parents[3] / "rec/configs/demo.toml")) == "rec/configs/demo.toml"
    assert told_file(str(tmp_path / "mine.toml")) == "mine.toml"
    assert told_file("../mine.toml") == "mine.toml"
    assert told_file("configs/mine.toml") == "configs/mine.toml"
    assert without_folders(["/home/me/a.csv", "b/c.csv", 3]) == ["a.csv", "b/c.csv", 3]
    assert without_folders({"file": "s3://bucket/events/"}) == {"file": "events"}
