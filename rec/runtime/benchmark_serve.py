"""`rec benchmark serve`: a served model beside a Serve deployment that returns a constant of the same size.

Both run on one runtime behind the same proxy, and are loaded in turns by wrk over loopback.
"""

from __future__ import annotations

import json
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from fastapi import FastAPI, Response

from rec.benchmarks import retrieval
from rec.benchmarks.row import Row
from rec.config import RunConfig, from_table
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.keys import DataConfig, PlantedConfig, SourceConfig, TextConfig
from rec.runtime.load import Load, write_bodies, wrk
from rec.runtime.served import State
from rec.runtime.serving import deploy, limits, replace, serving_runtime
from rec.serving.artifact import Artifact
from rec.serving.export import export
from rec.serving.ids import Ids
from rec.train.job import train_here

CLIENTS = (1, 16, 64, 256)
REPLICAS, PORT = 2, 8231
SECONDS, ROUNDS = 5.0, 3
OVERRIDES = {"replicas": REPLICAS, "max_queued": 512}
Say = Callable[[str], None]


def measure(folder: str, minutes: float, say: Say) -> list[Row]:
    """Return throughput and latency beside the constant, then what a run of faults did to clients."""
    rows = retrieval.measure()
    artifact = _artifact(Path(folder), say)
    bodies = write_bodies(Path(folder), _requests(artifact))
    configs = [limits(artifact, OVERRIDES)] * 2
    with serving_runtime(configs, "127.0.0.1", PORT) as state:
        deploy(artifact, OVERRIDES, "/model")
        state.add(artifact, OVERRIDES, "/model")
        _deploy_constant(artifact)
        url, constant = (f"http://127.0.0.1:{PORT}/{name}/v1/recommend" for name in ("model", "constant"))
        for warm in (url, constant):
            wrk(warm, bodies, 64, 3)
        peak = 0.0
        for clients in CLIENTS:
            say(f"{clients} clients")
            ours, theirs = _in_turns(url, constant, bodies, clients)
            rows += _compare(ours, theirs, clients)
            peak = max(peak, ours.per_s)
        rows.append(_half_load(url, bodies, peak, say))
        if minutes:
            rows += _faults(state, artifact, url, bodies, peak, minutes, say)
    return rows


def _artifact(folder: Path, say: Say) -> Artifact:
    """Return the artifact of a model of MovieLens 1M's number of items, hardly trained: only its speed counts."""
    text = TextConfig(modalities=("a", "b"), width=32)
    planted = PlantedConfig(interactions=100_000, users=2_000, items=3_416, modalities=("a", "b"))
    data = DataConfig(root=f"{folder}/data", source=SourceConfig(kind="planted", planted=planted), text=text)
    prepare(data, InProcess(), say)
    table = {"system": "rec.systems.msmrec:MSMRec", "out": f"{folder}/run", "data": {"root": data.root}}
    config: RunConfig = from_table(table | {"train": {"epochs": 1}})
    train_here(config, lambda _: None, say)
    return export(config, f"{folder}/model", say)


def _requests(artifact: Artifact) -> list[dict[str, Any]]:
    """Return requests for known users, and as many with histories of 1 to 50 items."""
    rng = np.random.default_rng(0)
    users, items = Ids.open(str(artifact.path / "users")), Ids.open(str(artifact.path / "items"))
    known = [{"user": users.name(int(i))} for i in rng.integers(0, len(users), 500)]
    lengths = rng.integers(1, 51, 500)
    told = [{"history": [items.name(int(i)) for i in rng.integers(1, len(items), n)]} for n in lengths]
    return [body for pair in zip(known, told, strict=True) for body in pair]


def _deploy_constant(artifact: Artifact) -> None:
    from ray import serve

    size = len(json.dumps(artifact.example()["answer"]["items"][:10])) // 2
    body = json.dumps({"items": "x" * size}).encode()
    app = FastAPI()

    @app.post("/v1/recommend")
    async def constant(request: dict[str, Any]) -> Response:
        return Response(body, media_type="application/json")

    class Constant:
        """Returns the same bytes to everyone."""

    deployment = serve.deployment(
        name="Constant", num_replicas=REPLICAS, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1}
    )(serve.ingress(app)(Constant))
    serve.run(deployment.bind(), name="constant", route_prefix="/constant")


def _in_turns(url: str, constant: str, bodies: Path, clients: int) -> tuple[Load, Load]:
    """Return the rounds with the median throughput of both."""
    rounds = [(wrk(url, bodies, clients, SECONDS), wrk(constant, bodies, clients, SECONDS)) for _ in range(ROUNDS)]
    ours, theirs = (sorted(loads, key=lambda load: load.per_s)[ROUNDS // 2] for loads in zip(*rounds, strict=True))
    return ours, theirs


def _compare(ours: Load, theirs: Load, clients: int) -> list[Row]:
    at = f"{clients} client{'s' if clients > 1 else ''}"
    goal = 1 / 0.7 if clients == 64 else None
    return [
        Row(f"{at}: time per request, limit: constant", 1e3 / ours.per_s, "ms", 1e3 / theirs.per_s, goal),
        Row(f"{at}: throughput", ours.per_s, "1/s"),
        Row(f"{at}: throughput of the constant", theirs.per_s, "1/s"),
        Row(f"{at}: p50, limit: constant", 1e3 * ours.p50_s, "ms", 1e3 * theirs.p50_s),
        Row(f"{at}: p99, limit: constant", 1e3 * ours.p99_s, "ms", 1e3 * theirs.p99_s),
        Row(f"{at}: failed requests of both", ours.failed + theirs.failed, "", goal=0.0),
    ]


def _half_load(url: str, bodies: Path, peak: float, say: Say) -> Row:
    """Return p99 against p50 at half of the peak, requests coming at random times."""
    load = _steady(url, bodies, 0.5 * peak, 15)
    say(f"half load: {load.per_s:.0f} of {0.5 * peak:.0f} requests per second")
    return Row("p99 at half load, limit: p50", 1e3 * load.p99_s, "ms", 1e3 * load.p50_s, 3.0)


def _steady(url: str, bodies: Path, per_s: float, seconds: float, clients: int = 64) -> Load:
    """Return what clients see who together send so many requests per second, each after a random pause."""
    pause_ms = 1e3 * clients / per_s
    for _ in range(2):
        found = wrk(url, bodies, clients, 5, pause_ms)
        pause_ms = max(1.0, pause_ms + 1e3 * (clients / per_s - clients / found.per_s))
    return wrk(url, bodies, clients, seconds, pause_ms)


def _faults(
    state: State, artifact: Artifact, url: str, bodies: Path, peak: float, minutes: float, say: Say
) -> list[Row]:
    """Return what clients saw at 70 % of the peak while a replica was killed every minute and one upgrade made."""
    second = Path(shutil.copytree(artifact.path, artifact.path.with_name("model-v2")))
    say(f"{minutes:g} min at {0.7 * peak:.0f} requests per second: a replica killed every minute, one upgrade")
    found: list[Load] = []
    thread = threading.Thread(target=lambda: found.append(_steady(url, bodies, 0.7 * peak, 60 * minutes)))
    start_s, killed, upgraded = time.monotonic(), 0, False
    memory: list[float] = []
    thread.start()
    while thread.is_alive():
        thread.join(5)
        minute = (time.monotonic() - start_s) / 60
        if minute > killed + 0.5 and killed + 0.5 < minutes - 0.5:
            psutil.Process(replica_pids()[killed % REPLICAS]).kill()
            killed += 1
        if not upgraded and minute > minutes / 2:
            upgraded = True
            replace(state, artifact.name, str(second), say)
        if len(pids := replica_pids()) == REPLICAS:
            memory.append(statistics.median(psutil.Process(pid).memory_full_info().uss for pid in pids) / 2**20)
    load = found[0]
    third = max(1, len(memory) // 3)
    early, late = statistics.median(memory[:third]), statistics.median(memory[-third:])
    return [
        Row(f"faults: failed of {load.requests:,} requests, {killed} kills, 1 upgrade", load.failed, "", goal=0.0),
        Row("faults: throughput, limit: asked for", load.per_s, "1/s", 0.7 * peak),
        Row("faults: p50", 1e3 * load.p50_s, "ms"),
        Row("faults: p99", 1e3 * load.p99_s, "ms"),
        Row("faults: longest", 1e3 * load.max_s, "ms"),
        Row("faults: memory of a replica alone, last third, limit: first third", late, "MiB", early, 1.1),
    ]


def replica_pids() -> list[int]:
    """Return the processes of the model's replicas on this machine."""
    return sorted(
        p.pid for p in psutil.process_iter(["cmdline"]) if "Replica:model:" in " ".join(p.info["cmdline"] or [])
    )
