"""Resident memory over all processes."""

import subprocess
import sys

import pytest

pytest.importorskip("psutil", reason="needs the extra `cluster`")

import torch

from rec.benchmarks.memory import PeakMemory, largest_bytes


def test_memory_counts_children() -> None:
    with PeakMemory() as alone:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)"], check=True)
    with PeakMemory() as heavy:
        code = "import time; x = b'1' * (300 << 20); time.sleep(0.3)"
        subprocess.run([sys.executable, "-c", code], check=True)
    assert heavy.peak_bytes - alone.peak_bytes > 250 << 20


def test_the_largest_tensor_is_one_that_was_made() -> None:
    given = torch.zeros(1000)
    assert largest_bytes(lambda: given[5:].add_(1).view(5, -1).sum(1)) == 5 * 4
    assert largest_bytes(lambda: torch.ones(3).double() + 1) == 3 * 8
    assert largest_bytes(lambda: given.view(10, 100)) == 0
