import subprocess
import sys

CODE = """
import numpy as np
from rec.train.memory import keep_freed_memory, peaks, restart_peaks
assert keep_freed_memory()
before = peaks()["peak_memory_bytes"]
held = [np.ones(1 << 20) for _ in range(60)]  # 480 MiB, which the allocator keeps
del held
assert peaks()["peak_memory_bytes"] > before + (400 << 20)
restart_peaks()
print(peaks()["peak_memory_bytes"] - before)
"""


def test_a_run_is_not_charged_with_what_was_freed_before_it() -> None:
    """Preparing takes gigabytes for a moment, in the process that trains afterwards where there are no workers."""
    told = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 50 << 20
