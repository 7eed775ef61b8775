"""Private runtimes: several in one process, nothing left behind."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra `cluster`")

from rec.runtime.cluster import FOLDER

CODE = """
import ray
from rec.runtime.cluster import runtime
for _ in range(2):
    with runtime(1):
        assert ray.get(ray.remote(lambda: 7).remote()) == 7
"""


@pytest.mark.ray
@pytest.mark.slow
def test_two_runtimes_in_one_process_leave_nothing_behind(tmp_path: Path) -> None:
    stale = Path(tempfile.gettempdir()) / f"{FOLDER}{2**22 + 1}-gone"  # above the largest process number of Linux
    stale.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"HOME": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", CODE], env=environment, cwd=Path(__file__).parents[2])
    assert process.wait(timeout=150) == 0
    assert list(tmp_path.iterdir()) == []
    assert not stale.exists()
    assert not list(Path(tempfile.gettempdir()).glob(f"{FOLDER}{process.pid}-*"))
