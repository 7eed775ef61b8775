"""The guests' generated data, and a run of each."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from rec.config import RunConfig, from_table
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.evaluation.run import Numbers, evaluate_run
from rec.train.job import train_here
from tests.guests import sets_guest, writer_guest

GUESTS = {"sets": sets_guest, "writer": writer_guest}


def quiet(_: Any) -> None:
    """Say nothing."""


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The generated data of each guest."""
    found = {name: str(tmp_path_factory.mktemp(f"{name}-data")) for name in GUESTS}
    for name in GUESTS:
        prepare(config_of(name, found, tmp_path_factory.mktemp(f"{name}-run")).data, InProcess(), quiet)
    return found


def config_of(guest: str, roots: dict[str, str], out: Path, **changes: dict[str, Any]) -> RunConfig:
    """Return the config of a guest's own TOML with some keys changed."""
    table = tomllib.loads(GUESTS[guest].TOML)  # type: ignore[attr-defined]
    table |= {"out": str(out), "data": table["data"] | {"root": roots[guest]}}
    for name, value in changes.items():
        table[name] = table.get(name, {}) | value
    return from_table(table)


@pytest.fixture(scope="session")
def trained(roots: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunConfig]:
    """A run of each guest, trained in this process."""
    found = {name: config_of(name, roots, tmp_path_factory.mktemp(name) / "run") for name in GUESTS}
    for config in found.values():
        train_here(config, quiet, quiet)
    return found


@pytest.fixture(scope="session")
def numbers(trained: dict[str, RunConfig]) -> dict[str, Numbers]:
    """Each run measured on test."""
    return {name: evaluate_run(config, "test") for name, config in trained.items()}
