"""What several tests need: the shared data, small prepared data sets, one Ray runtime."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rec.config import RunConfig, from_table
from rec.data.config import DataConfig, TextConfig
from rec.data.generated.catalogue import CatalogueConfig
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from tests.thorough import VARIANTS

pytest_plugins = [f"tests.support.{name}_fixtures" for name in ("artifact", "classifier", "foreign", "shared")]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
MODALITIES = ("narrative", "visual", "audio")


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background job, whose commands would be deaf to it
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = ("test_deaths.py", "test_own_system.py", "test_conformance_installed.py", "test_keys.py")
"""Files that take minutes: they start first, so that processes beside each other end together."""


@pytest.hookimpl(tryfirst=True)  # before -m chooses among them
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    whole = config.args == config.getini("testpaths") and not config.getoption("ignore")
    if whole and find_spec("ray"):  # without Ray some files have no tests
        unknown = [start for start in VARIANTS if not any(item.nodeid.startswith(start) for item in items)]
        if unknown:
            raise pytest.UsageError(f"tests/thorough.py: no test begins so: {unknown}")
    for item in items:
        if item.nodeid.startswith(VARIANTS):
            item.add_marker(pytest.mark.thorough)
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


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
    read = {"interactions": 6000, "users": 301, "items": 120, "modalities": MODALITIES} | changes
    return DataConfig(
        root=str(root),
        source="rec.data.generated.catalogue:PlantedCatalogue",
        read=CatalogueConfig(**read),
        text=TextConfig(modalities=MODALITIES, width=16),
        shard_rows=64,
    )


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A small generated data set of 301 users in five files per split."""
    config = planted_config(tmp_path_factory.mktemp("planted"))
    return prepare(config, InProcess(), lambda _: None, ["sequences"]).seen_as("sequences")


@pytest.fixture
def run_config(planted: Prepared, tmp_path: Path) -> Callable[..., RunConfig]:
    """Return a function that makes the config of a short run; changes are nested tables."""

    def make(**changes: dict[str, Any]) -> RunConfig:
        table: dict[str, Any] = {
            "system": "rec.systems.msmrec:MSMRec",
            "out": str(tmp_path / "run"),
            "model": {"width": 16, "blocks": 1, "max_length": 20},
            "data": {"root": planted.root},
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
            "data": {"root": planted.root},
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


class Runtimes:
    """The private Ray runtime that tests share; another one where a test leaves something in it."""

    def __init__(self) -> None:
        self.open = ExitStack()

    def start(self) -> None:
        from rec.runtime.cluster import runtime

        os.environ.pop("RAY_ADDRESS", None)
        self.open.enter_context(runtime(3))

    def held(self, patience_s: float = 30.0) -> str:
        """Return what still holds CPUs after some patience, or nothing where all are free."""
        import ray
        from ray._private.state import actors
        from ray.util import placement_group_table

        end_s = time.monotonic() + patience_s
        while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
            if time.monotonic() > end_s:
                groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
                alive = [a for a in actors().values() if a["State"] != "DEAD"]
                return f"free: {ray.available_resources()}\ngroups: {groups}\nactors: {alive}\n{processes()}"
            time.sleep(0.2)
        return ""


def processes() -> str:
    """Return a line for every process below this one."""
    return subprocess.run(["ps", "f", "-eo", "pid,ppid,stat,wchan:20,args"], capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def runtimes() -> Iterator[Runtimes]:
    found = Runtimes()
    found.start()
    yield found
    found.open.close()


@pytest.fixture
def ray_runtime(runtimes: Runtimes) -> Iterator[None]:
    """The Ray runtime of every test that needs one; a test that leaves CPUs taken fails, the next one has a new one."""
    yield
    if held := runtimes.held():
        runtimes.open.close()
        runtimes.start()
        pytest.fail(f"CPUs of the runtime are still taken:\n{held}")


@pytest.fixture(scope="session")
def ranks() -> Any:
    """Processes with gloo between them; see tests.support.ranks."""
    from tests.support.ranks import Ranks

    return Ranks()


@pytest.fixture(scope="session")
def chat_server() -> Iterator[Any]:
    """A server of chat completions and embeddings in a process of its own."""
    from rec.benchmarks.chat_server import serving

    with serving() as found:
        yield found


@pytest.fixture
def chat(chat_server: Any) -> Any:
    """That server, which forgets before each test what it was told and saw."""
    chat_server.behave()
    return chat_server


def food_config(root: Path, **changes: Any) -> DataConfig:
    """Return the config of a small generated set of foods and patients."""
    table: dict[str, Any] = {
        "source": "rec.data.generated.food:PlantedFood",
        "read": {"pairs": 900, "users": 90, "foods": 80, "picture_size": 24, "shards": 3},
        "split": {"protocol": "ratio", "cold_users": 0.1, "cold_items": 0.1},
        "encode": {
            "text": {"encoder": "tfidf", "width": 16, "max_tokens": 24, "vocabulary": 400},
            "image": {"encoder": "raw", "size": 16, "thumbnail": 24},
            "shard_items": 30,
        },
    }
    return DataConfig.model_validate({"root": str(root), "shard_rows": 40, **table, **changes})


@pytest.fixture(scope="session")
def food(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Generated foods and patients: 90 users, 80 foods."""
    data = prepare(food_config(tmp_path_factory.mktemp("food")), InProcess(), lambda _: None, ["pairs"])
    return data.seen_as("pairs")


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
            "data": {"root": food.root},
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
            "data": {"root": food.root},
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
