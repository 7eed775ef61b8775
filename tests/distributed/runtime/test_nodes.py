"""Reading on a cluster of two nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.data.prepared import Prepared

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_node_reads_once_for_its_workers_and_the_smallest_says_what_fits(planted: Prepared) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, "-m", "tests.support.nodes", planted.root]
    done = subprocess.run(
        command,
        env=environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
