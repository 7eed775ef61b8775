"""Memory of this process: what there is, what its allocator does with what a step frees, the most that there was."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import resource
from pathlib import Path

import torch

from rec.errors import ConfigError
from rec.nn.memory import Memory, in_words
from rec.train.config import ParallelConfig

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 1 << 30
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container says how much it may use."""
RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def capacity(device: torch.device | str, parallel: ParallelConfig) -> int:
    """Return the bytes that a worker may use on its device: its share of a GPU, or all that this machine has."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * (parallel.gpus_per_worker or 1.0))
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in LIMITS:
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(file.read_text()))
    return min(limits)


def refuse_beyond(memory: Memory | None, device: torch.device | str, parallel: ParallelConfig) -> None:
    """Check that what a worker needs fits its device.

    Raises:
        ConfigError: it does not.
    """
    if memory is None or memory.total <= (there := capacity(device, parallel)):
        return
    kind = "GPU" if torch.device(device).type == "cuda" else "machine"
    raise ConfigError(
        f"parallel: a worker needs an estimated {memory.told()} of memory, its {kind} has {in_words(there)}; "
        "activations fall with train.batch_size and rise of train.accumulate, experts with parallel.workers and "
        "parallel.expert_parallel, all with a smaller model"
    )


def keep_freed_memory() -> bool:
    """Let glibc keep up to 1 GiB of freed memory instead of handing it back; return whether it does.

    By default every tensor of a few MB is new memory from the kernel, page by page, each step: that costs a CPU a
    quarter of a small model's step.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES) and libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


def give_back() -> None:
    """Give what is free in this process back to the system, so that what is taken next is seen."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc's
        ctypes.CDLL(None).malloc_trim(0)


def restart_peaks(device: torch.device | str = "cpu") -> None:
    """Let the peaks of this process count from now on, where the kernel can; else they count from its start."""
    give_back()
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
