"""Resident memory over all processes."""

import subprocess
import sys

import pytest

pytest.importorskip("psutil", reason="needs the extra `cluster`")

from rec.benchmarks.memory import PeakMemory


def test_memory_counts_children() -> None:
    with PeakMemory() as alone:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)"], check=True)
    with PeakMemory() as heavy:
        code = "import time; x = b'1' * (300 << 20); time.sleep(0.3)"
        subprocess.run([sys.executable, "-c", code], check=True)
    assert heavy.peak_bytes - alone.peak_bytes > 250 << 20
