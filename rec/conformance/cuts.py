"""Whether a step is the same however its rows are cut into microbatches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.moe.layer import layers_of
from rec.moe.routers import SoftmaxRouter
from rec.nn.dropout import Dropout
from rec.nn.sharded import tables_of
from rec.systems.api import Phase, System
from rec.train.config import TrainConfig
from rec.train.engine import LocalEngine
from rec.train.phases import Stretch, own_flags, select
from rec.train.progress import TrainingProgress
from rec.train.ranks import OneRank, RankFeed
from rec.train.replicas import replicated_of, start_step
from rec.train.update import Update

Make = Callable[[Phase, Batch], Any]
"""Makes a module in training for a phase and all rows."""
SLACK = 1e-4
"""How far a gradient may be off, as a share of the largest of its parameter: float32 sums in another order."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """What a step gives."""

    terms: dict[str, float]
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]
    used: dict[str, Tensor]
    """Assignments of each layer's experts, their shares."""


class GradientEngine(LocalEngine):
    """Keeps the gradient of a step in the place of an update."""

    def step(self, rate: float) -> Tensor:
        """Keep the gradient; return its norm, ()."""
        self.gradients = {name: p.grad for name, p in self.module.named_parameters() if p.grad is not None}
        for name, table in tables_of(self.module):
            row_T, grad_TD = table.touched()
            self.gradients[name] = torch.zeros(table.rows, table.width).index_put((row_T,), grad_TD)
        return torch.stack([g.norm() for g in self.gradients.values()]).norm()


def stilled(module: nn.Module) -> nn.Module:
    """Take dropout and the noise of routers out of a module."""
    for part in module.modules():
        if isinstance(part, Dropout):
            part.share = 0.0
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, SoftmaxRouter):
            part.spread = None
    return module


def in_training(system: System[Any, Any], phase: Phase, batch: Batch) -> Any:
    """Return a fresh module as it stands when a phase starts, without dropout."""
    torch.manual_seed(5)
    module: Any = stilled(system.model())
    for parameter in module.parameters():  # what starts at zero would hide what follows from it
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    select(module, phase, own_flags(module))
    module.phase = phase.name
    if phase.before is not None:
        phase.before(module.eval(), RankFeed(OneRank(), lambda split: iter([(batch, True)])))
    module.train()
    system.start_epoch(module, 0)
    return module


def stepped(
    system: System[Any, Any], phase: Phase, module: Any, micro: Sequence[tuple[Batch, bool]], seed: int
) -> Stepped:
    """Return what a step of a module in training gives."""
    engine, branches = GradientEngine(module, TrainConfig()), replicated_of(module)

    def seeded(place: int) -> None:
        torch.manual_seed(seed + place)
        if not place:
            start_step(branches, seed, 0, 0)

    stretch = Stretch(phase=phase, config=TrainConfig(), index=0, count=1)
    seeded(0)
    terms, _ = Update(system, stretch, engine, TrainingProgress(), seeded)(micro, 0.0, False)
    used = {name: layer.usage.last_E / layer.usage.last_E.sum() for name, layer in layers_of(module)}
    return Stepped(terms, engine.gradients, {name: b.clone() for name, b in module.named_buffers()}, used)


def comparable(system: System[Any, Any], phase: Phase, batch: Batch, make: Make) -> tuple[Phase | None, bool]:
    """Return a phase with those of its terms that neither compare rows nor are drawn, and whether none is drawn.

    None where nothing is left to differentiate. What is drawn is found by a second seed.
    """
    one, other = (stepped(system, phase, make(phase, batch), [(batch, True)], seed) for seed in (1, 99))
    same = [name for name, value in one.terms.items() if abs(value - other.terms[name]) <= 1e-6 * abs(value)]
    names = tuple(name for name in same if name not in system.within_batch())
    found = replace(phase, terms=names) if any(one.terms[name] for name in names) else None
    return found, len(same) == len(one.terms)


def difference(one: Stepped, other: Stepped, *, state: bool) -> str:
    """Return what differs first between two steps, empty where nothing does; of their state where that is asked."""
    for name, value in one.terms.items():
        if abs(other.terms[name] - value) > 1e-5 * abs(value) + 1e-6:
            return f"term {name}: {value} of the whole, {other.terms[name]} in parts"
    for kind in ("gradients", *(("buffers", "used") if state else ())):
        ours, theirs = getattr(one, kind), getattr(other, kind)
        if ours.keys() != theirs.keys():
            return f"{kind}: {sorted(ours.keys() ^ theirs.keys())}"
        largest = max((float(value.double().abs().max()) for value in ours.values() if value.numel()), default=0.0)
        for name, value in ours.items():
            wanted, found = value.double(), theirs[name].double()
            if not wanted.numel():
                continue
            off, size = float((wanted - found).abs().max()), float(wanted.abs().max())
            # What is 0 on paper is left over of larger numbers.
            if off > SLACK * size + (1e-6 * largest if kind == "gradients" else 0.0) + 1e-7:
                return f"{kind} {name}: off by {off} of {size}"
    return ""
