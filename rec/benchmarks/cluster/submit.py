"""How long a job takes from `rec submit` to its first step on a cluster that is there, part by part."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rec.benchmarks.cluster.bench import RATE, Bench
from rec.benchmarks.cluster.training import LIMIT_S
from rec.benchmarks.row import Row
from rec.errors import TrainingError
from rec.runtime.local_cluster import LocalCluster, Shape, running

GOAL_S, ROUNDS, POLL_S = 30.0, 3, 0.02
CONFIG = """system = "rec.systems.msmrec:MSMRec"
[model]
gate = "none"
[train]
batch_size = 128
evaluate_every = 1
[parallel]
workers = 2
cpus_per_worker = 1.5
"""
WORDS = {
    "submitted": "the client packs the folder and the cluster takes the job",
    "connecting to the Ray cluster": "the cluster unpacks it and starts the driver",
    "workers are placed": "the driver reads config and data, connects, and places workers",
    "step 1/": "workers import, load the model, and make a step",
}
"""Parts of lines, in their order, that tell that what stands beside them is done."""


@dataclass(slots=True)
class LineTimes:
    """When a line with each of some words came first, in seconds from the start."""

    start_s: float = field(default_factory=time.time)
    at: dict[str, float] = field(default_factory=dict)

    def note(self, line: str) -> None:
        """Take note of a line."""
        for words in WORDS:
            if words in line:
                self.at.setdefault(words, time.time() - self.start_s)


def measure(bench: Bench) -> list[Row]:
    """Return the rows of the median of some submissions of a small run, the first of which finds nothing in caches."""
    folder = Path(bench.folder, "submitted")
    folder.mkdir()
    (folder / "job.toml").write_text(CONFIG)
    rounds = []
    with running(bench.name, Shape(nodes=2, cpus=2, rate=RATE)) as cluster:
        for number in range(ROUNDS):
            bench.say(f"submission {number + 1} of {ROUNDS}")
            rounds.append(submitted(cluster, folder, bench.data.root, f"{bench.folder}/submitted-{number}"))
    median = sorted(rounds, key=lambda at: at["step 1/"])[ROUNDS // 2]
    rows = [
        Row("from rec submit to the first step, 2 nodes, the median of 3", median["step 1/"], "s", goal=GOAL_S),
        Row("  the first of them, which finds no process ready", rounds[0]["step 1/"], "s", goal=GOAL_S),
    ]
    before = 0.0
    for words, told in WORDS.items():
        rows.append(Row(f"  {told}", median[words] - before, "s"))
        before = median[words]
    return rows


def submitted(cluster: LocalCluster, folder: Path, data: str, out: str) -> dict[str, float]:
    """Submit a run and return when each part was done, as its lines tell.

    Raises:
        TrainingError: it failed.
    """
    words = ["submit", "train", "job.toml", f"out={out}", f"data.root={data}"]
    times = LineTimes()
    client = subprocess.Popen(
        [sys.executable, "-m", "rec.cli", *words],
        env={**os.environ, **cluster.client},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    told: list[str] = []
    assert client.stdout is not None
    reader = threading.Thread(target=_read, args=(client.stdout, told, times), daemon=True)
    reader.start()
    deadline_s = time.time() + LIMIT_S
    known = set(_logs(cluster))
    logs: dict[Path, IO[str]] = {}
    while client.poll() is None and time.time() < deadline_s:
        # The job's own log, as what the client shows of it comes later.
        logs |= {path: path.open(errors="replace") for path in set(_logs(cluster)) - known - logs.keys()}
        for log in logs.values():
            for line in log:
                times.note(line)
        time.sleep(POLL_S)
    for log in logs.values():
        log.close()
    reader.join(1.0)
    if client.poll() != 0 or times.at.keys() != WORDS.keys():
        client.kill()
        raise TrainingError(f"a submitted run failed, or did not tell how far it was: {''.join(told)[-2000:]}")
    return times.at


def _logs(cluster: LocalCluster) -> list[Path]:
    return list(cluster.folder.glob("*/session_*/logs/job-driver-*.log"))


def _read(lines: IO[str], told: list[str], times: LineTimes) -> None:
    for line in lines:
        told.append(line)
        if "submitted" in line:
            times.note(line)
