"""What several tests need: the shared data, small prepared data sets, one Ray runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rec.config import RunConfig, from_table
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.keys import DataConfig, PlantedConfig, SourceConfig, TextConfig

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
MODALITIES = ("narrative", "visual", "audio")


@pytest.fixture(scope="session")
def movielens() -> Path:
    folder = SHARED / "movielens"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/movielens, which is not part of the project")
    return folder


@pytest.fixture(scope="session")
def amazon_baby() -> Path:
    folder = SHARED / "amazon_baby"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/amazon_baby, which is not part of the project")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def planted_config(root: Path, **changes: Any) -> DataConfig:
    planted = PlantedConfig(**{"interactions": 6000, "users": 301, "items": 120, "modalities": MODALITIES} | changes)
    return DataConfig(
        root=str(root),
        source=SourceConfig(kind="planted", planted=planted),
        text=TextConfig(modalities=MODALITIES, width=16),
        shard_rows=64,
    )


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A small generated data set of 301 users in five files per split."""
    return prepare(planted_config(tmp_path_factory.mktemp("planted")), InProcess(), lambda _: None)


@pytest.fixture
def run_config(planted: Prepared, tmp_path: Path) -> Callable[..., RunConfig]:
    """Return a function that makes the config of a short run; changes are nested tables."""

    def make(**changes: dict[str, Any]) -> RunConfig:
        table: dict[str, Any] = {
            "system": "rec.systems.msmrec:MSMRec",
            "out": str(tmp_path / "run"),
            "model": {"width": 16, "blocks": 1, "max_length": 20},
            "data": {"root": planted.storage.uri},
            "train": {"batch_size": 32, "epochs": 3, "learning_rate": 5e-3},
        }
        for name, value in changes.items():
            table[name] = table.get(name, {}) | value if isinstance(value, dict) else value
        return from_table(table)

    return make


@pytest.fixture(scope="session")
def trained(planted: Prepared, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A short run on the small data set, with two experts in each block."""
    from rec.train.job import train_here

    config = from_table(
        {
            "system": "rec.systems.msmrec:MSMRec",
            "out": str(tmp_path_factory.mktemp("trained") / "run"),
            "model": {"width": 16, "blocks": 1, "max_length": 20, "feedforward_mixture": {"experts": 2}},
            "data": {"root": planted.storage.uri},
            "train": {"batch_size": 32, "epochs": 2, "learning_rate": 5e-3},
        }
    )
    train_here(config, lambda _: None, lambda _: None)
    return config


@pytest.fixture(scope="session")
def artifact(trained: RunConfig) -> Any:
    """The artifact of that run."""
    from rec.serving.export import export

    return export(trained, f"{trained.out}-artifact", lambda _: None)


@pytest.fixture(scope="session")
def ray_runtime() -> Iterator[None]:
    """One private Ray runtime for every test that needs one."""
    from rec.runtime.cluster import runtime

    os.environ.pop("RAY_ADDRESS", None)
    with runtime(3):
        yield


@pytest.fixture(scope="session")
def ranks() -> Any:
    """Processes with gloo between them; see tests.ranks."""
    from tests.ranks import Ranks

    return Ranks()


def food_config(root: Path, **changes: Any) -> DataConfig:
    """Return the config of a small generated set of foods and patients."""
    table: dict[str, Any] = {
        "kind": "food",
        "food": {"pairs": 900, "users": 90, "foods": 80, "picture_size": 24, "shards": 3},
        "text": {"encoder": "tfidf", "width": 16, "max_tokens": 24, "vocabulary": 400},
        "image": {"encoder": "raw", "size": 16, "thumbnail": 24},
        "shard_items": 30,
        "cold_users": 0.1,
        "cold_items": 0.1,
    }
    return DataConfig.model_validate({"root": str(root), "shard_rows": 40, "pairs": table | changes})


@pytest.fixture(scope="session")
def food(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Generated foods and patients: 90 users, 80 foods."""
    return prepare(food_config(tmp_path_factory.mktemp("food")), InProcess(), lambda _: None)


TINY_HEALTHMOE = {
    "width": 8,
    "hidden": 16,
    "out": 8,
    "dropout": 0.0,
    "negatives": 8,
    "text": {"width": 16, "layers": 1, "pooling": "mean"},
    "image": {"width": 16, "layers": 1, "pooling": "mean"},
}


@pytest.fixture
def food_run(food: Prepared, tmp_path: Path) -> Callable[..., RunConfig]:
    """Return a function that makes the config of a short HealthMoE run; changes are nested tables."""

    def make(**changes: Any) -> RunConfig:
        table: dict[str, Any] = {
            "system": "rec.systems.healthmoe:HealthMoE",
            "out": str(tmp_path / "run"),
            "model": TINY_HEALTHMOE,
            "data": {"root": food.storage.uri},
            "train": {"batch_size": 16, "epochs": 2, "learning_rate": 5e-3},
        }
        for name, value in changes.items():
            table[name] = table.get(name, {}) | value if isinstance(value, dict) else value
        return from_table(table)

    return make


@pytest.fixture(scope="session")
def food_trained(food: Prepared, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A HealthMoE run of two epochs."""
    from rec.train.job import train_here

    config = from_table(
        {
            "system": "rec.systems.healthmoe:HealthMoE",
            "out": str(tmp_path_factory.mktemp("healthmoe") / "run"),
            "model": TINY_HEALTHMOE,
            "data": {"root": food.storage.uri},
            "train": {"batch_size": 16, "epochs": 2, "learning_rate": 5e-3},
            "evaluate": {"bootstrap": 100},
        }
    )
    train_here(config, lambda _: None, lambda _: None)
    return config


@pytest.fixture(scope="session")
def food_artifact(food_trained: RunConfig) -> Any:
    """The artifact of that run."""
    from rec.serving.export import export

    return export(food_trained, f"{food_trained.out}-artifact", lambda _: None)
