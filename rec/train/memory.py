"""Memory of this process: what its allocator does with what a step frees, and the most that there was."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import resource
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 1 << 30
RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def keep_freed_memory() -> bool:
    """Let glibc keep up to 1 GiB of freed memory instead of handing it back; return whether it does.

    By default every tensor of a few MB is new memory from the kernel, page by page, each step: that costs a CPU a
    quarter of a small model's step.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES) and libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


def restart_peaks(device: torch.device | str = "cpu") -> None:
    """Let the peaks of this process count from now on, where the kernel can; else they count from its start."""
    with contextlib.suppress(OSError):
        RESET.write_text("5")
    if torch.device(device).type == "cuda" and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device | str = "cpu") -> dict[str, int]:
    """Return the most memory that this process has had resident, and the most that it has had allocated on its GPU."""
    lines = STATUS.read_text().splitlines() if STATUS.is_file() else []
    high = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    unit = 1 if platform.system() == "Darwin" else 1024
    resident = high[0] * 1024 if high else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    found = {"peak_memory_bytes": resident}
    if torch.device(device).type == "cuda":
        found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(device)
    return found
