"""What memory a worker needs to train a system, told before it starts.

Letters: none; all sizes are bytes of one worker, or numbers of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from rec.train.config import ParallelConfig

FULL, HALF = 4, 2
"""Bytes of a number in float32 and in bfloat16."""
BUCKET = 500_000_000
"""Most numbers that DeepSpeed's ZeRO collects before it adds them up over workers."""
GIB = 1 << 30
PROCESS, HEAP = 560_000_000, 1.8
"""Resident bytes of a worker on CPUs: without a model (Python, torch, DeepSpeed, Ray), and for each byte of tensors.

glibc's heap keeps what is freed between blocks that are in use. Measured with models of 1 to 150 MB and batches of 64
to 2,048 examples: 1.7 to 2.0 (`tests/distributed/runtime/test_plan_nodes.py`).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes that a worker needs, by what for."""

    weights: int
    gradients: int = 0
    optimiser: int = 0
    """Adam's moments, and the float32 copies of weights that it updates where there are some."""
    buffers: int = 0
    """In which gradients are collected for other workers."""
    activations: int = 0
    """The most there is at once of what a step computes."""
    cache: int = 0
    """Keys and values of texts that are being written, in evaluation."""
    keeps_gradients: bool = False
    """Whether gradients of earlier microbatches are there while activations are; else those come as these go."""

    @property
    def total(self) -> int:
        """Return the most that there is at once."""
        both = self.gradients + self.activations
        step = both if self.keeps_gradients else max(self.gradients, self.activations)
        return self.weights + self.optimiser + max(self.buffers + step, self.cache)

    def told(self) -> str:
        """Return the total and its parts in words."""
        kinds = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "keeps_gradients"}
        parts = ", ".join(f"{name} {in_words(size)}" for name, size in kinds.items() if size)
        return f"{in_words(self.total)} ({parts}; not all at once)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How many parameters a model has, by how workers hold them."""

    trained: int
    frozen: int = 0
    experts: int = 0
    """Trained, and spread over workers."""
    width: int = FULL
    """Bytes of a weight, where DeepSpeed does not decide."""

    def memory(self, parallel: ParallelConfig) -> Memory:
        """Return the bytes of weights, gradients and optimiser of one worker."""
        workers, spread = max(parallel.workers, 1), parallel.expert_parallel
        experts = self.experts // spread
        own = self.trained + experts
        if not parallel.workers:
            return Memory(
                weights=self.width * (own + self.frozen), gradients=self.width * own, optimiser=2 * self.width * own
            )
        width = HALF if parallel.precision == "bf16" else self.width
        weights = width * (own + self.frozen)
        if parallel.zero_stage == 0:
            copies = FULL * own if width == HALF else 0
            return Memory(weights=weights, gradients=width * own, optimiser=2 * FULL * own + copies)
        # ZeRO cuts what is updated over the workers that hold the same; it keeps float32 copies in any precision.
        part = self.trained // workers + experts // (workers // spread)
        gradients = width * (own if parallel.zero_stage == 1 else part) + FULL * part
        return Memory(
            weights=weights,
            gradients=gradients,
            optimiser=3 * FULL * part,
            buffers=width * min(BUCKET, self.trained + self.experts),
        )


def resident(tensors: int) -> int:
    """Return the most bytes that a worker on CPUs has resident, for the most bytes of tensors that it has at once."""
    return PROCESS + round(HEAP * tensors)


def in_words(size: int) -> str:
    """Return a number of bytes in GiB, or in MiB where it is small."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / (1 << 20):.1f} MiB"
