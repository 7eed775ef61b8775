"""Where tests of foreign tables write them."""

from pathlib import Path

import pytest


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    return tmp_path / "t.parquet"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return tmp_path / "t.csv"
