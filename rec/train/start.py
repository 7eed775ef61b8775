"""Weights that a run starts from: those of another run, whose dense networks become experts.

Source: Komatsuzaki et al. 2023, Sparse Upcycling (arXiv 2212.05055): every expert starts as a copy of the dense network
in its place, and routers are drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rec.errors import CheckpointError, ConfigError
from rec.moe.experts import DrawnExperts
from rec.moe.layer import MixtureOfExperts
from rec.nn.making import made_undrawn
from rec.sections import counted
from rec.storage import Storage
from rec.train.checkpoint import MODEL, CheckpointStore
from rec.train.engine import tensors_of
from rec.train.ranks import Ranks
from rec.train.shards import Tensors


@dataclass(frozen=True, slots=True)
class Start:
    """The checkpoint of another run that validation chose there."""

    folder: str
    tensors: Tensors

    def told(self, taken: int, drawn: int) -> str:
        """Return in words what was taken."""
        return f"weights of {self.folder}: {counted(taken, 'tensor')} taken, {counted(drawn, 'tensor')} drawn anew"

    @torch.no_grad()
    def put(self, module: nn.Module) -> str:
        """Put into a fresh model what the checkpoint has of it, and return that in words."""
        own, taken = tensors_of(module), self.taken(module)
        for name, experts in taken.items():
            whole = self.tensors[f"model.{name}"]
            if experts is None:
                own[name].copy_(whole)
            else:
                experts.start(partial(_give, name.rpartition(".")[2], whole))
        return self.told(len(taken), len(own) - len(taken))

    def taken(self, module: nn.Module) -> dict[str, DrawnExperts | None]:
        """Return what a model takes, by name, with the experts that each get theirs.

        What only one of the two has stays as it was drawn, and so do routers that know another number of experts.

        Raises:
            ConfigError: a tensor has another shape, or none fits.
        """
        experts = {name: part for name, part in module.named_modules() if isinstance(part, DrawnExperts)}
        routers = tuple(
            f"{name}.router." for name, part in module.named_modules() if isinstance(part, MixtureOfExperts)
        )
        found: dict[str, DrawnExperts | None] = {}
        for name, value in tensors_of(module).items():
            if (key := f"model.{name}") not in self.tensors:
                continue
            shape, expected, part = self.tensors.shape(key), tuple(value.shape), experts.get(name.rpartition(".")[0])
            if shape == expected or (part is not None and shape == (1, *expected[1:])):
                found[name] = part
            elif not name.startswith(routers):
                more = " or one expert" if part is not None else ""
                told = f"{name} of {self.folder} has shape {shape}, expected {expected}{more}"
                raise ConfigError(f"train.start_from: {told}")
        if not found:
            raise ConfigError(f"train.start_from: {self.folder} has no tensor of this model")
        return found


def fresh(
    make: Callable[[], nn.Module], start: Start | None, ranks: Ranks, report: Callable[[dict[str, Any]], None]
) -> nn.Module:
    """Return a model with its first weights, and those of what it starts from; ranks draw their own experts later."""
    module = made_undrawn(make, DrawnExperts) if ranks.world_size > 1 else make()
    if start is not None:
        told = start.put(module)
        if ranks.rank == 0:
            report({"kind": "note", "rank": 0, "text": told})
    return module


def start_of(folder: str, *, checked: bool = False) -> Start | None:
    """Return what a run starts from that names a folder of another; None where it names none.

    Every byte is checked, unless that has been done.

    Raises:
        ConfigError: that folder holds no trained run.
    """
    if not folder:
        return None
    try:
        store = CheckpointStore(Storage(folder).below("checkpoints"))
        step = store.best_step() if checked else None
        chosen = store.load_best() if step is None else store.load(step, kinds=MODEL, checked=True)
    except CheckpointError as error:
        raise ConfigError(f"train.start_from: {folder} holds no run that was trained ({error})") from error
    return Start(folder, chosen.tensors)


def _give(name: str, whole: Tensor, experts: Any) -> None:
    """Give experts that are here their part of a tensor, or all of them the only one."""
    here = getattr(experts, name)
    here.copy_(whole if len(whole) == 1 else whole[experts.first : experts.first + len(here)])
