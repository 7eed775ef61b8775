"""Where numbers come from: by which code, on what machine, with which versions, when. Names no path, host or person."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "ray", "deepspeed")
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of CPU time per period that a container may use, as Linux tells it."""
GIT_S = 10.0
"""Longest wait for git."""


def now() -> str:
    """Return the time to the second, in UTC, as in 2026-01-31T12:00:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def code(root: Path | None = None) -> dict[str, Any]:
    """Return the version of this package and, where it lies in a git tree of its own, the commit.

    `dirty` tells whether files of the package differ from the commit or are not part of it.

    Args:
        root: The folder that holds the package; None takes where it lies.
    """
    root = root or Path(__file__).resolve().parents[1]
    found: dict[str, Any] = {"version": version("rec"), "commit": None, "dirty": None}
    if not (root / ".git").exists():
        return found
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", "rec")
    return found if not commit or changed is None else found | {"commit": commit, "dirty": bool(changed)}


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return what this process computes on: the CPU's model, cores it may use, memory in bytes, the GPU's name if any.

    Args:
        device: As torch names it.
    """
    gpu = None
    if device.startswith("cuda"):
        import torch

        gpu = torch.cuda.get_device_name(device)
    pages = {name: os.sysconf(name) for name in ("SC_PAGE_SIZE", "SC_PHYS_PAGES") if name in os.sysconf_names}
    memory = pages["SC_PAGE_SIZE"] * pages["SC_PHYS_PAGES"] if len(pages) == 2 else None
    return {"cpu": _cpu(), "cores": cores(), "memory_bytes": memory, "gpu": gpu}


def cores() -> int:
    """Return how many cores this process may use: those of the machine, of its affinity, of its control group."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if CPU_LIMIT.is_file():
        most, _, period = CPU_LIMIT.read_text().partition(" ")
        if most.isdigit():
            found = min(found, max(1, math.ceil(int(most) / int(period))))
    return found


def versions() -> dict[str, str]:
    """Return the versions of Python and of what trains, where it is installed."""
    found = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **{name: value for name, value in found.items() if value}}


def version(package: str) -> str | None:
    """Return the version of an installed package, None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in names if name), platform.processor() or platform.machine())


def _git(root: Path, *words: str) -> str | None:
    """Return what git says of the tree at a folder, None where it cannot tell."""
    # The tree is named outright: variables of a calling git, as in a hook, would name another.
    command = ["git", "--git-dir=.git", "--work-tree=.", *words]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=GIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
