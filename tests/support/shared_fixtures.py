"""The shared data that metrics are checked on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import SHARED


def shared_folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs ../shared/data/{name}, which is not part of the project")
    return folder


@pytest.fixture(scope="session")
def reviews() -> Path:
    return shared_folder("reviews")


@pytest.fixture(scope="session")
def medication() -> Path:
    return shared_folder("medication")
