"""A served model under steady load while its replicas are killed and an upgrade is made."""

from __future__ import annotations

import shutil
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from rec.benchmarks.load import WrkLoad, steady
from rec.benchmarks.row import Row
from rec.runtime.served import ServedState
from rec.runtime.serving import replace, replica_pids
from rec.serving.artifact import Artifact

Say = Callable[[str], None]


def with_faults(
    state: ServedState,
    artifact: Artifact,
    url: str,
    bodies: Path,
    per_s: float,
    minutes: float,
    replicas: int,
    say: Say,
) -> list[Row]:
    """Return what clients saw while a replica was killed every minute and one upgrade made.

    Args:
        state: What is served.
        artifact: What answers at `url`.
        url: Where requests go.
        bodies: The requests.
        per_s: Requests per second.
        minutes: How long.
        replicas: How many the artifact has.
        say: Told what happens.
    """
    second = Path(shutil.copytree(artifact.path, artifact.path.with_name("model-v2")))
    say(f"{minutes:g} min at {per_s:.0f} requests per second: a replica killed every minute, one upgrade")
    found: list[WrkLoad] = []
    thread = threading.Thread(target=lambda: found.append(steady(url, bodies, per_s, 60 * minutes)))
    start_s, killed, upgraded = time.monotonic(), 0, False
    memory: list[float] = []
    thread.start()
    while thread.is_alive():
        thread.join(5)
        minute = (time.monotonic() - start_s) / 60
        if minute > killed + 0.5 and killed + 0.5 < minutes - 0.5:
            psutil.Process(replica_pids(artifact.name)[killed % replicas]).kill()
            killed += 1
        if not upgraded and minute > minutes / 2:
            upgraded = True
            replace(state, artifact.name, str(second), say)
        if len(pids := replica_pids(artifact.name)) == replicas:
            memory.append(statistics.median(psutil.Process(pid).memory_full_info().uss for pid in pids) / 2**20)
    load = found[0]
    third = max(1, len(memory) // 3)
    early, late = statistics.median(memory[:third]), statistics.median(memory[-third:])
    return [
        Row(f"faults: failed of {load.requests:,} requests, {killed} kills, 1 upgrade", load.failed, "", goal=0.0),
        Row("faults: throughput, limit: asked for", load.per_s, "1/s", per_s),
        Row("faults: p50", 1e3 * load.p50_s, "ms"),
        Row("faults: p99", 1e3 * load.p99_s, "ms"),
        Row("faults: longest", 1e3 * load.max_s, "ms"),
        Row("faults: memory of a replica alone, last third, limit: first third", late, "MiB", early, 1.1),
    ]
