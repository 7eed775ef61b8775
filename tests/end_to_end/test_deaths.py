"""A command that is stopped by SIGKILL at any write ends, run again, as if nothing had been."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rec.config import from_table, to_toml
from tests.conftest import TINY_HEALTHMOE
from tests.support.deaths import Commands
from tests.support.toy_phases import toy_table

CATALOGUE = {
    "source": "rec.data.generated.catalogue:PlantedCatalogue",
    "read": {"interactions": 1000, "users": 60, "items": 40, "modalities": ["visual", "audio"], "shards": 2},
    "text": {"modalities": ["visual", "audio"], "width": 4},
    "shard_rows": 40,
}
FOOD = {
    "source": "rec.data.generated.food:PlantedFood",
    "read": {"pairs": 300, "users": 30, "foods": 40, "picture_size": 16, "shards": 1},
    "split": {"protocol": "ratio"},
    "encode": {
        "text": {"encoder": "tfidf", "width": 4, "max_tokens": 8, "vocabulary": 100},
        "image": {"encoder": "raw", "size": 8, "thumbnail": 8},
        "shard_items": 30,
    },
}
HERE = {"workers": 0, "threads": 1}


class Stage:
    """Folders in which commands run, and what they start from."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.commands = folder, Commands(folder)
        self.kept: dict[str, Path] = {}

    def config(self, name: str, **table: Any) -> str:
        """Return the TOML file of a run in a folder of its name, on the data of the same name or `data`."""
        path = self.folder / f"{name}.toml"
        whole = {"out": str(self.folder / name), "parallel": HERE, **table}
        path.write_text(to_toml(from_table(whole)))
        return str(path)

    def do(self, *argv: str) -> None:
        """Run a command to its end."""
        done = self.commands.run(argv, self.folder)
        assert done.code == 0, done.log

    def keep(self, name: str) -> Path:
        """Return a copy of a folder as it is now."""
        kept = self.folder / f"kept-{name}-{len(self.kept)}"
        shutil.copytree(self.folder / name, kept)
        self.kept[kept.name] = kept
        return kept


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    found = Stage(tmp_path_factory.mktemp("deaths"))
    yield found
    found.commands.close()


def msmrec(stage: Stage, name: str, **train: Any) -> str:
    keys = {"batch_size": 32, "epochs": 3, "learning_rate": 5e-3, "checkpoint_steps": 3} | train
    model = {"width": 8, "blocks": 1, "max_length": 10, "feedforward_mixture": {"experts": 2}}
    data = {"root": str(stage.folder / "data"), **CATALOGUE}
    return stage.config(
        name, system="rec.systems.msmrec:MSMRec", model=model, data=data, train=keys, evaluate={"bootstrap": 100}
    )


def healthmoe(stage: Stage) -> str:
    data, train = {"root": str(stage.folder / "food"), **FOOD}, {"batch_size": 64, "epochs": 1, "learning_rate": 5e-3}
    system, keys = "rec.systems.healthmoe:HealthMoE", {"bootstrap": 100}
    return stage.config("sweep", system=system, model=TINY_HEALTHMOE, data=data, train=train, evaluate=keys)


@pytest.fixture(scope="module")
def prepared(stage: Stage) -> str:
    """The config of a run whose data set is prepared."""
    config = msmrec(stage, "run")
    stage.do("prepare", config)
    return config


@pytest.fixture(scope="module")
def trained(stage: Stage, prepared: str) -> Path:
    """What is in the folder of a trained run."""
    stage.do("train", prepared)
    return stage.keep("run")


@pytest.fixture(scope="module")
def evaluated(stage: Stage, prepared: str, trained: Path) -> Path:
    """What is in the folder of a run that was trained and measured."""
    shutil.rmtree(stage.folder / "run")
    shutil.copytree(trained, stage.folder / "run")
    stage.do("evaluate", prepared)
    return stage.keep("run")


def test_preparing(stage: Stage) -> None:
    done = stage.commands.die_everywhere(["prepare", msmrec(stage, "run")], stage.folder / "data")
    assert done.points > 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_preparing_where_there_is_another_data_set(stage: Stage, prepared: str) -> None:
    argv = ["prepare", prepared, "data.filter.minimum_item_count=12"]
    done = stage.commands.die_everywhere(argv, stage.folder / "data", stage.keep("data"))
    assert done.points > 20
    stage.do("prepare", prepared)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_preparing_texts_and_pictures(stage: Stage) -> None:
    done = stage.commands.die_everywhere(["prepare", healthmoe(stage)], stage.folder / "food")
    assert done.points > 20


def test_training(stage: Stage, prepared: str) -> None:
    done = stage.commands.die_everywhere(["train", prepared], stage.folder / "run")
    assert done.points > 20


def test_training_that_stops_early(stage: Stage, prepared: str) -> None:
    keys, folder = {"epochs": 9, "patience": 2, "learning_rate": 1e-30, "checkpoint_steps": 0}, stage.folder / "early"
    done = stage.commands.die_everywhere(["train", msmrec(stage, "early", **keys)], folder)
    assert done.points > 15
    history = json.loads((folder / "history.json").read_text())
    assert [record["epoch"] for record in history] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_in_phases(stage: Stage, prepared: str) -> None:
    data = {"root": str(stage.folder / "data")}
    config = stage.config("phases", **toy_table(data=data, train={"batch_size": 36, "checkpoint_steps": 3}))
    done = stage.commands.die_everywhere(["train", config], stage.folder / "phases")
    assert done.points > 20


@pytest.mark.parametrize("name", ["run", "early"])
def test_the_same_command_on_a_finished_run_writes_nothing(stage: Stage, prepared: str, name: str) -> None:
    keys = {} if name == "run" else {"epochs": 9, "patience": 2, "learning_rate": 1e-30}
    config, folder = msmrec(stage, name, **keys), stage.folder / name
    stage.do("train", config)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = stage.commands.run(["train", config], folder)
    assert (again.code, again.points, list(again.past)) == (0, 0, [])
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_evaluating(stage: Stage, prepared: str, trained: Path) -> None:
    done = stage.commands.die_everywhere(["evaluate", prepared], stage.folder / "run", trained)
    assert done.points == 4


def test_an_evaluation_that_was_stopped_over_another_is_not_read(stage: Stage, prepared: str, evaluated: Path) -> None:
    for at in range(2, 5):
        argv = ["evaluate", prepared, "evaluate.popular_share=0.03"]
        died = stage.commands.run_from(argv, stage.folder / "run", evaluated, at)
        assert died.code < 0
        told = stage.commands.run(["report", prepared], stage.folder / "run")
        assert told.code == 1
        assert "run `rec evaluate`" in told.log
        (former,) = (stage.folder / "run" / "evaluation").glob("test-*")  # made by other keys, and so kept
        assert json.loads((former / "metrics.json").read_text())["tasks"]


def test_reporting(stage: Stage, prepared: str, evaluated: Path) -> None:
    done = stage.commands.die_everywhere(["report", prepared], stage.folder / "run", evaluated)
    assert done.points == 1


def test_writing_results(stage: Stage, prepared: str, evaluated: Path) -> None:
    shutil.rmtree(stage.folder / "run")
    shutil.copytree(evaluated, stage.folder / "run")
    pages = stage.folder / "pages"
    done = stage.commands.die_everywhere(["results", str(stage.folder / "run"), "--to", str(pages)], pages)
    assert done.points == 2


def test_exporting_where_there_is_an_artifact(stage: Stage, prepared: str, trained: Path) -> None:
    shutil.rmtree(stage.folder / "run")
    shutil.copytree(trained, stage.folder / "run")
    folder = stage.folder / "artifacts"
    argv = ["export", prepared, "--to", str(folder / "one")]
    done = stage.commands.run_from([*argv, "serve.index=hnsw"], folder, None)
    assert done.code == 0, done.log
    done = stage.commands.die_everywhere([*argv, "serve.replicas=2"], folder, stage.keep("artifacts"))
    assert done.points > 20


def test_predicting(stage: Stage, prepared: str, trained: Path) -> None:
    shutil.rmtree(stage.folder / "run")
    shutil.copytree(trained, stage.folder / "run")
    argv = ["predict", prepared, "train.evaluate_batch_size=16"]
    done = stage.commands.die_everywhere(argv, stage.folder / "run", trained)
    assert done.points > 10


def test_answering_a_table_of_requests(stage: Stage, prepared: str, trained: Path) -> None:
    shutil.rmtree(stage.folder / "run")
    shutil.copytree(trained, stage.folder / "run")
    table = stage.folder / "asked.jsonl"
    rows = [{"history": ["1", "2", str(n)]} if n % 5 else {"history": 7} for n in range(40)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = stage.folder / "answers"
    argv = ["predict", prepared, "--requests", str(table), "--to", str(answers)]
    done = stage.commands.die_everywhere(argv, answers)
    assert done.points > 5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sweeping(stage: Stage) -> None:
    config = healthmoe(stage)
    stage.do("prepare", config)
    argv = ["sweep", config, "--only", "full; text only"]
    done = stage.commands.die_everywhere(argv, stage.folder / "sweep", most=3)
    assert done.points > 20
