"""One optimiser step: the loss of a batch over all ranks and microbatches, its gradient, the update.

Terms are sums and counts, so that the gradient is that of the whole batch however it is cut. What a microbatch has to
be divided by is known only when all are counted: where a system does not tell counts from batches alone, a pass without
gradients counts them first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rec.batch import Batch
from rec.errors import TrainingError
from rec.moe.layer import layers_of
from rec.moe.step import step_counts_of
from rec.nn.stepwise import Stepwise
from rec.systems.api import System
from rec.terms import Term, table_of
from rec.train.engine import Engine
from rec.train.own_time import OwnTime
from rec.train.phases import Stretch
from rec.train.progress import TrainingProgress
from rec.train.replicas import Running
from rec.train.validation import counted_terms, let_count
from rec.transfer import to_host

SAVE, LEAVE = 1.0, 2.0
"""What the first rank may wish for with a step: a checkpoint, and an end after it."""
Totals = Mapping[str, tuple[float, float]]
"""Sum and count of each term over all ranks and microbatches."""
Step = tuple[dict[str, Term], Tensor, dict[str, float]]
"""The terms of a step, their sums and counts over all ranks with the wish in a last row, and their weights."""


class Left(Exception):
    """The run was told to leave its machines; all that it has done is saved."""


@dataclass(frozen=True, slots=True)
class Update:
    """What one step is made with."""

    system: System[Any, Any]
    stretch: Stretch
    engine: Engine
    progress: TrainingProgress
    seed: Callable[[int], None]
    """Seeds what is random in a microbatch, given its place in the step."""
    own: OwnTime = field(default_factory=OwnTime)

    def __call__(self, micro: Sequence[tuple[Batch, bool]], rate: float, wish: float) -> tuple[dict[str, float], float]:
        """Make the step; return the global mean of each term, and what rank 0 wishes for, 0.0 for nothing.

        Raises:
            TrainingError: the loss or its gradient is not finite.
        """
        mixtures = list(layers_of(self.engine.module))
        before = [layer.usage.total for _, layer in mixtures]
        terms, total, weight = self._one(*micro[0], wish) if len(micro) == 1 else self._many(micro, wish)
        total, moved = to_host([total, self.engine.step(rate)])
        # What the loss is and the norm come in one message after the update: a run that ends by them saves nothing.
        values = self._noted(terms, _totals(terms, total))
        wished = float(total[-1, 0])
        norm = float(moved)
        if not math.isfinite(norm):
            raise TrainingError(f"{self._place()}: the gradient's norm is {norm}")
        for (_, layer), total in zip(mixtures, before, strict=True):
            if len(micro) > 1:
                layer.usage.put(layer.usage.total, layer.usage.total - total.to(layer.usage.total.device))
            layer.usage.settle()
            layer.after_step()
        for part in self.engine.module.modules():
            if isinstance(part, Stepwise):
                part.after_step()
        return {name: value * weight[name] for name, value in values.items()}, wished

    def _one(self, batch: Batch, counts: bool, wish: float) -> Step:
        terms = self._terms(batch, counts)
        total = self._summed(table_of(terms, self.engine.device) * float(counts), wish)
        means: dict[str, float] = {}
        if any(term.scale is not None for term in terms.values()):
            (known,) = to_host([total])
            means = {name: terms[name].value_of(*pair) for name, pair in _totals(terms, known).items()}
        weight = {name: term.weight_in(means) for name, term in terms.items()}
        parts = [term.part_over(*sums) for term, sums in zip(terms.values(), total[:-1], strict=True)]
        self.own.stop()
        self.engine.backward(self._whole(parts, weight.values(), counts))
        return terms, total, weight

    def _many(self, micro: Sequence[tuple[Batch, bool]], wish: float) -> Step:
        ahead = self._told(micro)
        known = self._counted(micro) if ahead is None else ahead
        own, weight, terms = None, {}, {}
        running = Running(self.engine.module)
        for place, (batch, counts) in enumerate(micro):
            self.seed(place)
            terms = self._terms(batch, counts)
            if ahead is not None and (wrong := _unlike(terms, ahead)):
                raise TrainingError(f"{type(self.system).__name__}.counts: {wrong}")
            means = {name: term.value_of(*known[name]) for name, term in terms.items()}
            weight = {name: term.weight_in(means) for name, term in terms.items()}
            table = table_of(terms, self.engine.device) * float(counts)
            own = table if own is None else own + table
            parts = [term.part_of(*known[name]) for name, term in terms.items()]
            self.own.stop()
            self.engine.backward(self._whole(parts, weight.values(), counts), last=place + 1 == len(micro))
            running.take(counts)
        assert own is not None
        running.settle()
        for whole in step_counts_of(self.engine.module):
            whole.clear()
        return terms, self._summed(own, wish), weight

    def _told(self, micro: Sequence[tuple[Batch, bool]]) -> Totals | None:
        """Return the counts of all that is in the step, where the system tells them from the batches alone."""
        found = [(self.system.counts(self.engine.module, batch), counts) for batch, counts in micro]
        if any(told is None for told, _ in found):
            return None
        names = list(found[0][0] or ())
        sums = torch.tensor([[float(counts) * (told or {})[n] for n in names] for told, counts in found])
        total = self.engine.sum_over_ranks(sums.double().sum(0))
        return {name: (0.0, count) for name, count in zip(names, total.tolist(), strict=True)}

    def _counted(self, micro: Sequence[tuple[Batch, bool]]) -> Totals:
        """Return sums and counts by a pass without gradients, which leaves no traces but counts of the whole step."""
        own, terms = None, {}
        wholes = list(step_counts_of(self.engine.module))
        for whole in wholes:
            whole.note()
        with torch.no_grad(), _as_it_was(self.engine):
            for place, (batch, counts) in enumerate(micro):
                self.seed(place)
                terms = self._terms(batch, counts)
                table = table_of(terms, self.engine.device) * float(counts)
                own = table if own is None else own + table
            for whole in wholes:
                whole.tell()
        assert own is not None
        return _totals(terms, *to_host([self._summed(own, 0.0)]))

    def _terms(self, batch: Batch, counts: bool) -> dict[str, Term]:
        let_count(self.engine.module, counts)
        return counted_terms(self.system.loss(self.engine, batch.to(self.engine.device)), self.stretch)

    def _summed(self, own: Tensor, wish: float) -> Tensor:
        """Return sums and counts over all ranks, and in a last row what rank 0 wishes for, (terms + 1, 2)."""
        asked = torch.full_like(own[:1], wish if self.engine.rank == 0 else 0.0)
        return self.engine.sum_over_ranks(torch.cat([own, asked]))

    def _noted(self, terms: Mapping[str, Term], totals: Totals) -> dict[str, float]:
        """Return the mean of each term over the global batch, and add it to what the epoch tells."""
        values = {}
        for name, (value, count) in totals.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self._place()}: loss term {name!r} is {value}; "
                    f"lower {self.stretch.key('learning_rate')}, set train.clip_norm, or look for broken inputs"
                )
            values[name] = terms[name].value_of(value, count)
            sums = self.progress.sums.setdefault(name, [0.0, 0.0])
            sums[0], sums[1] = sums[0] + values[name] * count, sums[1] + count
        return values

    def _whole(self, parts: Sequence[Tensor], weights: Iterable[float], counts: bool) -> Tensor:
        """Return what to differentiate here, of what the terms give."""
        scale = float(counts) * self.engine.world_size
        return torch.stack(
            [(part * (weight * scale)).float() for part, weight in zip(parts, weights, strict=True)]
        ).sum()

    def _place(self) -> str:
        return f"epoch {self.progress.epoch} step {self.progress.step}"


def _totals(terms: Mapping[str, Term], total: Tensor) -> Totals:
    """Return sum and count by the term's name, of a table that the host knows; what follows the terms is left."""
    pairs: list[tuple[float, float]] = total.tolist()
    return {name: (pair[0], pair[1]) for name, pair in zip(terms, pairs, strict=False)}


def _unlike(terms: Mapping[str, Term], told: Totals) -> str:
    """Return why counts that were told ahead do not fit the terms of a loss, empty where they do."""
    if lacking := [name for name in terms if name not in told]:
        return f"tells nothing of the term {lacking[0]!r}"
    bent = [name for name, term in terms.items() if term.root or term.scale is not None]
    return f"the term {bent[0]!r} has a root or a scale, which needs sums too" if bent else ""


@contextmanager
def _as_it_was(engine: Engine) -> Iterator[None]:
    """Put back afterwards what a forward in training counts and averages."""
    usages = [layer.usage for _, layer in layers_of(engine.module)]
    counted = [(usage.total, usage.last) for usage in usages]
    running = Running(engine.module)
    yield
    for usage, (total, last) in zip(usages, counted, strict=True):
        usage.put(total, last)
    running.put_back()
