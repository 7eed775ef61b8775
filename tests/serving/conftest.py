"""Artifacts of systems outside the package: a set predictor over ragged visits, and a writer that also rates."""

import tomllib
from typing import Any

import pytest

from rec.config import from_table
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.serving.artifact import Artifact
from tests.guests import sets_guest
from tests.serving import scribe


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
def writer_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return exported(scribe, str(tmp_path_factory.mktemp("writer")), {"epochs": 8})
