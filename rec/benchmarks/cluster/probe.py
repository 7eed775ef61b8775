"""A system whose workers note, at the start of every epoch, what they have spent in collectives so far."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from rec.json_text import json_text
from rec.nn.history import HistoryBatch
from rec.runtime import exchange
from rec.systems.msmrec import MSMRec
from rec.systems.msmrec.config import MSMRecConfig
from rec.systems.msmrec.model import MSMRecModel
from rec.terms import Term

COLLECTIVES = (
    *("all_reduce", "reduce", "broadcast", "all_gather", "all_gather_into_tensor", "reduce_scatter_tensor"),
    *("all_to_all_single", "all_gather_object", "broadcast_object_list", "barrier", "isend", "irecv"),
)


class ProbedConfig(MSMRecConfig):
    """Keys of `[model]`."""

    marks: str
    """Folder into which every rank writes what it notes."""


class Probed(MSMRec):
    """MSMRec that is measured."""

    Config = ProbedConfig
    config: ProbedConfig

    def model(self) -> MSMRecModel:
        """Return a freshly initialised model; from here on collectives are counted, those of its engine among them."""
        spent()
        return super().model()

    def loss(self, model: Callable[[HistoryBatch], Any], batch: HistoryBatch) -> dict[str, Term]:
        """Return the loss, and count the batch's rows."""
        spent().passed += len(batch.item_N)
        return super().loss(model, batch)

    def start_epoch(self, module: MSMRecModel, epoch: int) -> None:
        """Note time, CPU time and collectives so far, and what of the model this rank trains."""
        super().start_epoch(module, epoch)
        rank = torch.distributed.get_rank()
        parts: dict[str, list[int]] = {"shared": [0, 0], "experts": [0, 0]}
        for parameter in module.parameters():
            if parameter.requires_grad:
                part = parts["shared" if getattr(parameter, "allreduce", True) else "experts"]
                part[0], part[1] = part[0] + parameter.numel(), part[1] + parameter.numel() * parameter.element_size()
        told = {"epoch": epoch, "at_s": time.time(), "cpu_s": time.process_time(), "parts": parts} | spent().as_json()
        with Path(self.config.marks, f"{rank}.jsonl").open("a") as file:
            file.write(json_text(told) + "\n")


class Spent:
    """Calls, seconds and bytes of collectives of this process."""

    def __init__(self) -> None:
        self.depth = 0
        self.calls: dict[str, int] = {}
        self.bytes: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.passed, self.rows, self.rows_bytes = 0, 0, 0
        """Rows of all batches; those of all layers that had an expert on another rank, once for each such rank, and the
        bytes that had to cross for them."""

    def noted(self, send: Callable[..., Any]) -> Callable[..., Any]:
        """Return what sends rows to experts, which counts those that must go to other ranks."""

        @functools.wraps(send)
        def counted(x_ND: Tensor, weight_QK: Tensor, parcel: Any, places: Any, link: Any) -> Any:
            found = send(x_ND, weight_QK, parcel, places, link)
            sizes, slots = found[3], weight_QK.shape[1]
            rows = sum(sizes.rows_out) - sizes.rows_out[link.rank]
            # There with weights and numbers of experts, and back; then the gradients of all but the numbers.
            each = 4 * x_ND.shape[1] * x_ND.element_size() + slots * (2 * weight_QK.element_size() + 2)
            self.rows, self.rows_bytes = self.rows + rows, self.rows_bytes + rows * each
            return found

        return counted

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a collective that counts itself; one that others are made of counts there."""

        @functools.wraps(call)
        def counted(*words: Any, **keys: Any) -> Any:
            self.depth += 1
            start_s = time.perf_counter()
            try:
                return call(*words, **keys)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.calls[name] = self.calls.get(name, 0) + 1
                    self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start_s
                    self.bytes[name] = self.bytes.get(name, 0) + max(map(_size, (*words, *keys.values())), default=0)

        return counted

    def as_json(self) -> dict[str, Any]:
        """Return what was counted as plain values."""
        told = {"calls": dict(self.calls), "seconds": dict(self.seconds), "bytes": dict(self.bytes)}
        return told | {"passed": self.passed, "rows": self.rows, "rows_bytes": self.rows_bytes}


@functools.cache
def spent() -> Spent:
    """Return what counts in this process; from the first call on, all collectives pass there."""
    found = Spent()
    for name in COLLECTIVES:
        wrapped = found.wrapped(name, getattr(torch.distributed, name))
        setattr(torch.distributed, name, wrapped)
        setattr(torch.distributed.distributed_c10d, name, wrapped)
    exchange.send = found.noted(exchange.send)  # type: ignore[attr-defined]
    return found


def _size(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_size, value)) if isinstance(value, list) else 0
