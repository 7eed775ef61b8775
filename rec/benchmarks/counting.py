"""Counts of what a piece of work asks of a device: waits of the host, collectives, operations.

No accelerator is needed. What would make the host wait for one is known by name: a value that is read, a shape that
depends on values, a copy to the host. Inside, tensors are taken for an accelerator's wherever the code has a way of its
own for the CPU, whose sizes the host knows at no cost.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from rec import transfer

READ = ("_local_scalar_dense", "item", "is_nonzero", "equal")
"""A value of a tensor is read; without gradients the second and third are not taken apart."""
SHAPED = ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "isin")
"""The shape of what comes out depends on values; a histogram looks for the largest first."""
COPIED = ("tolist", "cpu", "numpy", "__array__")
"""Methods of a tensor that bring it to the host."""
MADE = ("tensor", "as_tensor", "new_tensor")
"""What copies numbers of the host to a device and waits until they are there, where a device is named."""
FREE = ("detach", "alias", "lift_fresh", "empty", "empty_like", "new_empty", "empty_strided", "_unsafe_view")


@dataclass(slots=True)
class Counts:
    """What was counted, by name."""

    syncs: Counter[str] = field(default_factory=Counter)
    collectives: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    """Where the host waits: name, file and line of this project that asks."""
    copies: list[Tensor] = field(default_factory=list)
    """What is on the host, and read at no cost."""


@contextmanager
def counting(where: bool = False) -> Iterator[Counts]:
    """Count what happens inside; with `where`, the lines that make the host wait too."""
    found = Counts()
    known, wait = transfer.host_knows, transfer.wait

    def waited(values: Any, copies: Any) -> None:
        _sync(found, "wait", where)
        found.copies += copies
        wait(values, copies)

    transfer.host_knows, transfer.wait = lambda value: False, waited
    try:
        with _Methods(found, where), _Operations(found, where):
            yield found
    finally:
        transfer.host_knows, transfer.wait = known, wait


def _sync(found: Counts, name: str, where: bool) -> None:
    found.syncs[name] += 1
    if where:
        frames = [f for f in traceback.extract_stack() if "/torch/" not in f.filename and "counting" not in f.filename]
        found.places[f"{name} {'/'.join(frames[-1].filename.split('/')[-2:])}:{frames[-1].lineno}"] += 1


def _at_hand(found: Counts, value: Tensor) -> bool:
    """Return whether a tensor is a copy on the host, or a part of one."""
    place = value.untyped_storage().data_ptr()
    return any(place == copy.untyped_storage().data_ptr() for copy in found.copies)


class _Methods(TorchFunctionMode):
    """Hears of copies to the host, which are no operations where the tensor is there already."""

    def __init__(self, found: Counts, where: bool) -> None:
        super().__init__()
        self.found, self.where = found, where

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        made = name in MADE and (name == "new_tensor" or (kwargs or {}).get("device") is not None)
        if made or (name in COPIED and isinstance(func, type(Tensor.cpu)) and not _at_hand(self.found, args[0])):
            _sync(self.found, name, self.where)
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    """Hears of every operation, in a backward too."""

    def __init__(self, found: Counts, where: bool) -> None:
        super().__init__()
        self.found, self.where = found, where

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, _, full = func._schema.name.partition("::")
        if space == "c10d":
            self.found.collectives[full.rstrip("_")] += 1
        elif (full in READ or full in SHAPED or _shaped(full, args, kwargs or {})) and not _at_hand(
            self.found, args[0]
        ):
            _sync(self.found, full, self.where)
        if space != "c10d" and not func.is_view and full not in FREE:
            self.found.operations[full] += 1
        return func(*args, **(kwargs or {}))


def _shaped(name: str, args: Any, kwargs: Any) -> bool:
    """Return whether arguments make an operation wait that otherwise does not."""
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None and isinstance(args[-1], Tensor)
    if name == "_grouped_mm":
        return bool(args[0].dtype != torch.bfloat16)  # falls back to a product per expert
    if name in ("index", "index_put", "index_put_"):
        masks = any(part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1])
        # One value under a mask is filled in without looking for the places.
        return masks and not (name != "index" and args[2].numel() == 1)
    return False
