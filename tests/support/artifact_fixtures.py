"""Artifacts of systems outside the package: a set predictor over ragged visits, and a writer that also rates."""

import tomllib
from typing import Any

import pytest

from rec.config import from_table
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.serving.artifact import Artifact
from tests.guests import sets_guest, writer_guest
from tests.support import scribe, ward


def exported(guest: Any, folder: str, epochs: dict[str, Any]) -> Artifact:
    from rec.serving.export import export
    from rec.train.job import train_here

    table = tomllib.loads(guest.TOML) | {"out": f"{folder}/run"}
    table["data"]["root"] = f"{folder}/data"
    table["train"] |= epochs
    config = from_table(table)
    if hasattr(guest, "write_data"):
        guest.write_data(config.data.root)
    else:
        prepare(config.data, InProcess(), lambda _: None)
    train_here(config, lambda _: None, lambda _: None)
    return export(config, f"{folder}/artifact", lambda _: None)


@pytest.fixture(scope="session")
def sets_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return exported(sets_guest, str(tmp_path_factory.mktemp("sets")), {"epochs": 6})


@pytest.fixture(scope="session")
def ward_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return exported(ward, str(tmp_path_factory.mktemp("ward")), {"epochs": 3})


@pytest.fixture(scope="session")
def writer_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return exported(scribe, str(tmp_path_factory.mktemp("writer")), {"epochs": 8})


@pytest.fixture(scope="session")
def reviewer_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return exported(writer_guest, str(tmp_path_factory.mktemp("reviewer")), {"epochs": 1})


def graph_artifact(system: str, folder: str) -> Artifact:
    """Return the artifact of a short run on a small generated graph."""
    from rec.serving.export import export
    from rec.train.job import train_here

    read = {"users": 60, "items": 40, "interactions": 1000, "width": 8}
    data = {"root": f"{folder}/data", "source": "rec.data.generated.graph:PlantedGraph", "read": read}
    data |= {"split": {"protocol": "mmrec"}, "content": {"neighbours": 5}}
    train = {"batch_size": 256, "epochs": 2, "learning_rate": 0.02}
    config = from_table({"system": system, "out": f"{folder}/run", "data": data, "model": {"width": 8}, "train": train})
    prepare(config.data, InProcess(), lambda _: None)
    train_here(config, lambda _: None, lambda _: None)
    return export(config, f"{folder}/artifact", lambda _: None)


@pytest.fixture(scope="session")
def lightgcn_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return graph_artifact("rec.systems.lightgcn:LightGCN", str(tmp_path_factory.mktemp("lightgcn")))


@pytest.fixture(scope="session")
def magnet_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return graph_artifact("rec.systems.magnet:Magnet", str(tmp_path_factory.mktemp("magnet")))
