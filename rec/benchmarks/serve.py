"""A served model beside a Serve deployment that returns a constant of the same size.

Both run on one runtime behind the same proxy, and are loaded in turns by wrk over loopback.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Response

from rec.benchmarks import retrieval, serve_nodes
from rec.benchmarks.load import WrkLoad, steady, write_bodies, wrk
from rec.benchmarks.parts import chosen
from rec.benchmarks.row import Row
from rec.benchmarks.serve_faults import with_faults
from rec.benchmarks.work import CATALOGUE
from rec.config import RunConfig, from_table
from rec.data.config import DataConfig, TextConfig
from rec.data.generated.catalogue import CatalogueConfig
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.json_text import json_text
from rec.runtime.proxies import serving_runtime
from rec.runtime.serving import deploy, deploy_web, limits
from rec.serving.artifact import Artifact
from rec.serving.export import export
from rec.train.job import train_here

CLIENTS = (1, 16, 64, 256)
REPLICAS, PORT = 2, 8231
SECONDS, ROUNDS = 5.0, 3
PARTS = ("machine", "nodes")
ROWS = 32
OVERRIDES = {"replicas": REPLICAS, "max_queued": 512}
Say = Callable[[str], None]


def measure(folder: str, minutes: float, only: Collection[str], say: Say) -> list[Row]:
    """Return what was measured on this machine alone and on several nodes.

    Raises:
        RequestError: an unknown part.
    """
    parts = chosen("serve", PARTS, only)
    rows = on_machine(folder, minutes, say) if "machine" in parts else []
    return [*rows, *(on_nodes(folder, say) if "nodes" in parts else [])]


def on_nodes(folder: str, say: Say) -> list[Row]:
    """Return what a service of two real nodes did when one was lost, versions changed and the load rose."""
    artifact = _artifact(Path(folder), say)
    second = _artifact(Path(folder), say, name="model-v2", epochs=2)
    return serve_nodes.measure(artifact.path, second.path, write_bodies(Path(folder), _requests(artifact)), say)


def on_machine(folder: str, minutes: float, say: Say) -> list[Row]:
    """Return throughput and latency beside the constant, then what a run of faults did to clients."""
    rows = retrieval.measure()
    artifact = _artifact(Path(folder), say)
    bodies = write_bodies(Path(folder), _requests(artifact))
    configs = [limits(artifact, OVERRIDES)] * 2
    with serving_runtime(configs, "127.0.0.1", PORT) as state:
        deploy(artifact, OVERRIDES, "/model")
        state.add(artifact, OVERRIDES, "/model")
        size = len(json_text(artifact.example()["answer"]["items"][:10])) // 2
        deploy_web(constant("/v1/recommend", size), "constant", "/constant", REPLICAS)
        url, fixed = (f"http://127.0.0.1:{PORT}/{name}/v1/recommend" for name in ("model", "constant"))
        for warm in (url, fixed):
            wrk(warm, bodies, 64, 3)
        peak = 0.0
        for clients in CLIENTS:
            say(f"{clients} clients")
            rounds, limit = in_turns(url, fixed, bodies, clients)
            ours = rounds[ROUNDS // 2]
            rows += compared(ours, limit, clients)
            peak = max(peak, ours.per_s)
        rows.append(_half_load(url, bodies, peak, say))
        rows += _rows_of_many(f"http://127.0.0.1:{PORT}/model/v1/predict", Path(folder), artifact, say)
        if minutes:
            rows += with_faults(state, artifact, url, bodies, 0.7 * peak, minutes, REPLICAS, say)
    return rows


def _artifact(folder: Path, say: Say, name: str = "model", epochs: int = 1) -> Artifact:
    """Return the artifact of a model of MovieLens 1M's number of items, hardly trained: only its speed counts."""
    text = TextConfig(modalities=("a", "b"), width=32)
    planted = CatalogueConfig(interactions=100_000, users=2_000, items=3_416, modalities=("a", "b"))
    data = DataConfig(root=f"{folder}/data", source=CATALOGUE, read=planted, text=text)
    prepare(data, InProcess(), say)
    table = {"system": "rec.systems.msmrec:MSMRec", "out": f"{folder}/{name}-run", "data": {"root": data.root}}
    config: RunConfig = from_table(table | {"train": {"epochs": epochs}})
    train_here(config, lambda _: None, say)
    return export(config, f"{folder}/{name}", say)


def _requests(artifact: Artifact) -> list[dict[str, Any]]:
    """Return requests for known users, and as many with histories of 1 to 50 items."""
    rng = np.random.default_rng(0)
    users, items = artifact.members("user").ids, artifact.members("item").ids
    known = [{"user": users.name(int(i))} for i in rng.integers(0, len(users), 500)]
    lengths = rng.integers(1, 51, 500)
    told = [{"history": [items.name(int(i)) for i in rng.integers(1, len(items), n)]} for n in lengths]
    return [body for pair in zip(known, told, strict=True) for body in pair]


def constant(path: str, size: int) -> FastAPI:
    """Return an application that answers everyone who posts to a path with the same bytes, about so many."""
    body = json_text({"items": "x" * size}).encode()
    app = FastAPI()

    @app.post(path)
    async def answer(request: dict[str, Any]) -> Response:
        return Response(body, media_type="application/json")

    return app


def in_turns(url: str, fixed: str, bodies: Path, clients: int) -> tuple[list[WrkLoad], list[WrkLoad]]:
    """Return the rounds of a model and of the constant, slowest first."""
    rounds = [(wrk(url, bodies, clients, SECONDS), wrk(fixed, bodies, clients, SECONDS)) for _ in range(ROUNDS)]
    ours, theirs = (sorted(loads, key=lambda load: load.per_s) for loads in zip(*rounds, strict=True))
    return ours, theirs


def compared(ours: WrkLoad, constant: Sequence[WrkLoad], clients: int) -> list[Row]:
    """Return time per request, throughput and latency of a model beside the constant's rounds."""
    at = f"{clients} client{'s' if clients > 1 else ''}"
    goal = 1 / 0.7 if clients == 64 else None
    theirs = constant[len(constant) // 2]
    spread = 1e3 / constant[-1].per_s, 1e3 / constant[0].per_s
    name = f"{at}: time per request, limit: constant"
    return [
        Row(name, 1e3 / ours.per_s, "ms", 1e3 / theirs.per_s, goal, physical=True, limit_spread=spread),
        Row(f"{at}: throughput", ours.per_s, "1/s"),
        Row(f"{at}: throughput of the constant", theirs.per_s, "1/s"),
        Row(f"{at}: p50, limit: constant", 1e3 * ours.p50_s, "ms", 1e3 * theirs.p50_s),
        Row(f"{at}: p99, limit: constant", 1e3 * ours.p99_s, "ms", 1e3 * theirs.p99_s),
        Row(f"{at}: failed requests of both", ours.failed + theirs.failed, "", goal=0.0),
    ]


def _rows_of_many(url: str, folder: Path, artifact: Artifact, say: Say) -> list[Row]:
    """Return the time per row of many clients that send one row each, beside one client that sends as many at once."""
    rows = [body for body in _requests(artifact) if "history" in body][: 8 * ROWS]
    single = write_bodies(folder, [{"rows": [row]} for row in rows], "single")
    many = write_bodies(folder, [{"rows": rows[at : at + ROWS]} for at in range(0, len(rows), ROWS)], "many")
    say(f"/v1/predict: {ROWS} clients with a row each, and one with {ROWS}")
    wrk(url, single, ROWS, 3)
    rounds = [(wrk(url, single, ROWS, SECONDS), wrk(url, many, 1, SECONDS)) for _ in range(ROUNDS)]
    ours = sorted(1e3 / load.per_s for load, _ in rounds)
    limit = sorted(1e3 / (ROWS * load.per_s) for _, load in rounds)
    spread, middle = (limit[0], limit[-1]), ROUNDS // 2
    name = f"predict: time per row, {ROWS} clients with a row each, limit: one client with {ROWS} rows"
    return [
        Row(name, ours[middle], "ms", limit[middle], 1 / 0.7, limit_spread=spread),
        Row("predict: failed requests of both", sum(a.failed + b.failed for a, b in rounds), "", goal=0.0),
    ]


def _half_load(url: str, bodies: Path, peak: float, say: Say) -> Row:
    """Return p99 against p50 at half of the peak, requests coming at random times."""
    load = steady(url, bodies, 0.5 * peak, 15)
    say(f"half load: {load.per_s:.0f} of {0.5 * peak:.0f} requests per second")
    return Row("p99 at half load, limit: p50", 1e3 * load.p99_s, "ms", 1e3 * load.p50_s, 3.0)
