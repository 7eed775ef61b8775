"""What a killed `rec serve` leaves behind is ended by the next private runtime, whatever that is for."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rec.errors import RequestError
from rec.runtime import served

DEAD = 2**22 + 1  # above the largest process number of Linux


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def runtime_of(owner: int, folders: Path, proxies: Path) -> Path:
    folder = folders / f"{served.FOLDER}{owner}-serve-x"
    folder.mkdir()
    served.ServedState(folder, {"token": "t", "proxies": str(proxies), "apps": {}}).write()
    return folder


def test_proxies_of_a_dead_owner_are_ended_and_those_of_a_living_one_are_not(folders: Path) -> None:
    processes, found = [], []
    for owner in (DEAD, os.getpid()):
        proxies = folders / f"proxies-{owner}"
        proxies.mkdir()
        found.append(runtime_of(owner, folders, proxies))
        command = [sys.executable, "-c", "import time; time.sleep(60)", f"{proxies}/haproxy.cfg"]
        processes.append(subprocess.Popen(command))
    plain = folders / f"{served.FOLDER}{DEAD}-plain"
    plain.mkdir()
    try:
        served.sweep()
        assert processes[0].wait(10) != 0
        assert processes[1].poll() is None
        assert [folder.exists() for folder in (*found, plain)] == [False, True, False]
        assert not (folders / f"proxies-{DEAD}").exists()
    finally:
        processes[1].kill()


def test_nothing_that_runs_is_an_error_that_says_so(folders: Path) -> None:
    runtime_of(DEAD, folders, folders / "none")
    with pytest.raises(RequestError, match="no `rec serve` runs on this machine"):
        served.newest()
