"""What runs in a replica: one artifact behind the web application."""

from __future__ import annotations

import gc
import math
import os
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI
from ray import serve
from ray.util import metrics

from rec.errors import DataError
from rec.runtime.errors_log import tell_file
from rec.runtime.served import TOKEN
from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.artifact import Artifact
from rec.serving.border import Shares
from rec.serving.example import differs
from rec.serving.multiplex import Multiplexer

FLUSH_S = 1.0
RECENT = 4096
"""Requests whose times the percentiles are taken from."""


class RayMeters:
    """Counts requests, batches and the use of experts and modalities; Ray's agents show them to Prometheus.

    Counts are kept here and handed over every second: handing over each would cost more than the model.
    """

    def __init__(self, artifact: str) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.passes = [0.0, 0.0, 0.0]
        self.used: dict[tuple[str, str], Shares] = {}
        plain, route = ("artifact",), ("artifact", "route")
        share = ("artifact", "kind", "layer", "index")
        self.out = {
            "requests": metrics.Counter("rec_requests", "Requests by route and status.", (*route, "status")),
            "seconds": metrics.Counter("rec_request_seconds", "Time that requests took in replicas.", route),
            "p50": metrics.Gauge("rec_request_p50_seconds", "Median time of recent requests.", plain),
            "p99": metrics.Gauge("rec_request_p99_seconds", "99th percentile of recent requests.", plain),
            "batches": metrics.Counter("rec_batches", "Passes of the model.", plain),
            "batched": metrics.Counter("rec_batched_requests", "Requests answered in passes of the model.", plain),
            "pass_seconds": metrics.Counter("rec_pass_seconds", "Time of passes of the model.", plain),
            "waiting": metrics.Gauge("rec_waiting_requests", "Requests that wait for a pass.", plain),
            "share": metrics.Gauge("rec_share", "Use of an expert or modality in the last pass.", share),
        }
        for metric in self.out.values():
            metric.set_default_tags({"artifact": artifact})
        self.waiting = 0
        self.ended = threading.Event()
        threading.Thread(target=self._flush_always, daemon=True, name="meters").start()

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.counts[route, status] += 1
        self.seconds[route] += seconds
        self.recent.append(seconds)

    def batch(self, size: int, seconds: float, waiting: int) -> None:
        """Count a pass of the model."""
        self.passes = [a + b for a, b in zip(self.passes, (1, size, seconds), strict=True)]
        self.waiting = waiting

    def shares(self, kind: str, name: str, shares: Shares) -> None:
        """Note how experts or modalities were used."""
        self.used[kind, name] = shares

    def close(self) -> None:
        """Hand over what is left and end."""
        self.ended.set()

    def _flush_always(self) -> None:
        while not self.ended.wait(FLUSH_S):
            self.flush()
        self.flush()

    def flush(self) -> None:
        """Hand over what was counted since the last time."""
        counts, self.counts = self.counts, Counter()
        seconds, self.seconds = self.seconds, defaultdict(float)
        passes, self.passes = self.passes, [0.0, 0.0, 0.0]
        for (route, status), count in counts.items():
            self.out["requests"].inc(count, {"route": route, "status": str(status)})
        for route, total in seconds.items():
            self.out["seconds"].inc(total, {"route": route})
        if passes[0]:
            for name, value in zip(("batches", "batched", "pass_seconds"), passes, strict=True):
                self.out[name].inc(value)
        self.out["waiting"].set(self.waiting)
        if self.recent:
            p50, p99 = np.quantile(list(self.recent), [0.5, 0.99])
            self.out["p50"].set(float(p50))
            self.out["p99"].set(float(p99))
        for (kind, name), shares in list(self.used.items()):
            for index, share in enumerate(shares.tolist() if isinstance(shares, torch.Tensor) else shares):
                self.out["share"].set(share, {"kind": kind, "layer": name, "index": str(index)})


class Replica:
    """One copy of an artifact; it starts only where its example gets the answer that was exported."""

    def __init__(self, path: str, overrides: Mapping[str, Any]) -> None:
        self.web = open_app(path, overrides)
        # What was loaded stays for good: the collector need not look at it again.
        gc.collect()
        gc.freeze()

    def __serve_build_asgi_app__(self) -> Any:
        return self.web


class Multiplexed:
    """Several artifacts in one replica, those used last in memory."""

    def __init__(self, paths: Mapping[str, str], overrides: Mapping[str, Any], most: int) -> None:
        self.web = Multiplexer(lambda name: open_app(paths[name], overrides), list(paths), most)

    def __serve_build_asgi_app__(self) -> Any:
        return self.web


def open_app(path: str, overrides: Mapping[str, Any]) -> FastAPI:
    """Return the application of an artifact.

    Raises:
        DataError: the artifact is not whole, or its example gets another answer than the exported one.
    """
    tell_file()
    artifact = Artifact.open(path)
    config = artifact.config.serve.model_copy(update=dict(overrides))
    torch.set_num_threads(max(1, math.floor(config.cpus_per_replica)))
    answerer = Answerer(artifact, "cuda" if config.gpus_per_replica else "cpu")
    if found := differs(answerer):
        raise DataError(f"{path}: the example's answer differs from the exported one: {found}")
    name = serve.get_replica_context().replica_id.unique_id
    token = os.environ[TOKEN] if config.token else None
    return create(answerer, config, RayMeters(artifact.name), token, name)
