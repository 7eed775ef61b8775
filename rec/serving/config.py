"""The keys of `[serve]`: copies, batches, limits and the index of an artifact that is served."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rec.strict import Needs, Strict


class ServeConfig(Strict):
    """How an artifact is served."""

    NEEDS: ClassVar[Needs] = {
        "target_ongoing_requests": {"max_replicas": {"not": [0]}},
        "downscale_delay_s": {"max_replicas": {"not": [0]}},
        "index_candidates": {"index": {"not": ["exact"]}},
    }

    replicas: int = Field(1, ge=1)
    """Copies of the model at the start, and the fewest."""
    max_replicas: int = Field(0, ge=0)
    """Most copies that autoscaling starts; 0 keeps `replicas`."""
    target_ongoing_requests: int = Field(32, ge=1)
    """Requests per replica that autoscaling aims at."""
    downscale_delay_s: float = Field(60.0, ge=0)
    """Seconds of less load after which autoscaling ends copies."""
    cpus_per_replica: float = Field(1.0, gt=0)
    """CPUs that a replica reserves, fractions allowed."""
    gpus_per_replica: float = Field(0.0, ge=0, le=1)
    """Share of a GPU that a replica reserves and keeps its model on, so that several may use one; 0 answers on CPUs."""
    max_batch_size: int = Field(64, ge=1)
    """Most requests answered in one pass of the model."""
    latency_target_ms: float = Field(50.0, gt=0)
    """What the size of batches and the wait for company aim at, for the 99th percentile within a replica."""
    max_queued: int = Field(256, ge=1)
    """Requests that wait in one replica before further ones get 503 with Retry-After."""
    deadline_ms: float = Field(2000.0, gt=0)
    """Time a request may take before it gets 504; the header X-Deadline-Ms asks for less, with 408."""
    max_body_bytes: int = Field(1 << 20, ge=1)
    """Larger requests get 413."""
    max_k: int = Field(1000, ge=1)
    """Most items that a request may ask for."""
    max_history: int = Field(5000, ge=1)
    """Longest history, list of candidates or of exclusions that a request may send."""
    max_tokens: int = Field(256, ge=1)
    """Most tokens of a text that a request may ask for."""
    token: bool = False
    """Asks for `Authorization: Bearer` with the value of REC_SERVE_TOKEN, except for health."""
    index: Literal["exact", "ivf", "hnsw"] = "exact"
    """How the best items are found: all are scored, or by faiss among candidates that are then scored exactly."""
    index_candidates: int = Field(1000, ge=1)
    """Candidates that ivf and hnsw hand to exact scoring."""

    @model_validator(mode="after")
    def _most_is_more(self) -> Self:
        if 0 < self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas: at least replicas ({self.replicas}), or 0; got {self.max_replicas}")
        return self
