"""The medications of one visit by request: in this process, and through Serve beside a constant of the same size."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rec.benchmarks.load import write_bodies, wrk
from rec.benchmarks.row import Row
from rec.benchmarks.serve import OVERRIDES, PORT, REPLICAS, ROUNDS, compared, constant, in_turns
from rec.benchmarks.work import Say
from rec.config import RunConfig
from rec.data.prepared import open_prepared
from rec.data.stream import to_columns
from rec.json_text import json_text
from rec.runtime.proxies import serving_runtime
from rec.runtime.serving import deploy, deploy_web, limits
from rec.sections import counted
from rec.serving.answers import Answerer
from rec.serving.artifact import Artifact
from rec.serving.config import ServeConfig
from rec.serving.export import export
from rec.train.job import train_here

PATH, CLIENTS, VISITS = "/v1/predict", (1, 16), 300
FEW_STEPS = 4096
"""A batch so large that an epoch has few."""


def measure(folder: str, configs: Mapping[str, RunConfig], say: Say) -> list[Row]:
    """Return what an answer to one visit takes, for every system; they are hardly trained, only their speed counts."""
    found: list[Row] = []
    for number, (name, config) in enumerate(configs.items()):
        say(f"{name}: an artifact")
        train = config.train.model_copy(update={"epochs": 1, "batch_size": FEW_STEPS, "validation_share": 0.05})
        run = config.model_copy(update={"train": train})
        train_here(run, lambda _: None, say)
        artifact = export(run, f"{folder}/served-{number}", say)
        asked = requests(artifact, run)
        found += alone(name, artifact, asked)
        if number == 0:
            found += served(name, artifact, write_bodies(Path(folder), asked), say)
    return found


def requests(artifact: Artifact, config: RunConfig) -> list[dict[str, Any]]:
    """Return requests for the medications of visits of the test split."""
    answerer, rows = Answerer(artifact), open_prepared(config).rows("test")
    told = (answerer.rows.told(to_columns(rows.slice(n, 1)), ServeConfig()) for n in range(min(VISITS, len(rows))))
    return [{"rows": [row]} for row in told]


def alone(name: str, artifact: Artifact, asked: list[dict[str, Any]]) -> list[Row]:
    """Return the median and the slowest hundredth of answers in this process, from the request to what is sent."""
    answerer, taken = Answerer(artifact), []
    route = answerer.routes(ServeConfig())[PATH.removeprefix("/v1/")]
    for request in asked[:20] + asked:
        start_s = time.perf_counter()
        parsed = route.parse(route.request.model_validate(request))
        json_text(answerer.finished(route.joined(answerer.work(route, parsed))))
        taken.append(time.perf_counter() - start_s)
    p50_s, p99_s = np.quantile(taken[20:], [0.5, 0.99])
    return [
        Row(f"{name}: p50 of one visit, in one process", 1e3 * float(p50_s), "ms"),
        Row(f"{name}: p99 of one visit, in one process", 1e3 * float(p99_s), "ms"),
    ]


def served(name: str, artifact: Artifact, bodies: Path, say: Say) -> list[Row]:
    """Return what clients see of the model on Serve, beside the constant."""
    rows: list[Row] = []
    with serving_runtime([limits(artifact, OVERRIDES)] * 2, "127.0.0.1", PORT) as state:
        deploy(artifact, OVERRIDES, "/model")
        state.add(artifact, OVERRIDES, "/model")
        deploy_web(constant(PATH, len(json_text(artifact.example()["answer"]))), "constant", "/constant", REPLICAS)
        url, fixed = (f"http://127.0.0.1:{PORT}/{side}{PATH}" for side in ("model", "constant"))
        for warm in (url, fixed):
            wrk(warm, bodies, max(CLIENTS), 3)
        for clients in CLIENTS:
            say(f"{name}: {counted(clients, 'client')}")
            loads, limit = in_turns(url, fixed, bodies, clients)
            rows += compared(loads[ROUNDS // 2], limit, clients)
    return rows
