"""What runs in a replica: one artifact behind the web application."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ray import serve
from ray.util.metrics import Counter, Gauge, Histogram

from rec.errors import DataError
from rec.serving.answers import Answerer
from rec.serving.app import create
from rec.serving.artifact import Artifact
from rec.serving.example import differs

TOKEN = "REC_SERVE_TOKEN"
SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]
SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


class RayMeters:
    """Counts requests, batches and the use of experts and modalities; Ray's agents show them to Prometheus."""

    def __init__(self, artifact: str) -> None:
        own = {"artifact": artifact}
        self.requests = Counter("rec_requests", "Requests by route and status.", ("artifact", "route", "status"))
        self.seconds = Histogram("rec_request_seconds", "Time in a replica.", SECONDS, ("artifact", "route"))
        self.sizes = Histogram("rec_batch_size", "Requests per pass of the model.", SIZES, ("artifact",))
        self.passes = Histogram("rec_pass_seconds", "Time of a pass of the model.", SECONDS, ("artifact",))
        self.waiting = Gauge("rec_waiting_requests", "Requests that wait for a pass.", ("artifact",))
        self.used = Gauge(
            "rec_share", "Use of an expert or modality in the last pass.", ("artifact", "kind", "layer", "index")
        )
        for metric in (self.requests, self.seconds, self.sizes, self.passes, self.waiting, self.used):
            metric.set_default_tags(own)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.inc(1, {"route": route, "status": str(status)})
        self.seconds.observe(seconds, {"route": route})

    def batch(self, size: int, seconds: float, waiting: int) -> None:
        """Count a pass of the model."""
        self.sizes.observe(size)
        self.passes.observe(seconds)
        self.waiting.set(waiting)

    def shares(self, kind: str, name: str, shares: Sequence[float]) -> None:
        """Note how experts or modalities were used."""
        for index, share in enumerate(shares):
            self.used.set(share, {"kind": kind, "layer": name, "index": str(index)})


class Replica:
    """One copy of an artifact; it starts only where its example gets the answer that was exported."""

    def __init__(self, path: str, limits: Mapping[str, Any]) -> None:
        artifact = Artifact.open(path)
        config = artifact.config.serve.model_copy(update=dict(limits))
        torch.set_num_threads(max(1, math.floor(config.cpus_per_replica)))
        answerer = Answerer(artifact)
        if found := differs(answerer):
            raise DataError(f"{path}: the example's answer differs from the exported one: {found}")
        name = serve.get_replica_context().replica_id.unique_id
        self.web = create(
            answerer, config, RayMeters(artifact.name), os.environ.get(TOKEN) if config.token else None, name
        )
        # What was loaded stays for good: the collector need not look at it again.
        gc.collect()
        gc.freeze()

    def __serve_build_asgi_app__(self) -> Any:
        return self.web
