"""One optimiser step: the loss of a batch over all ranks and microbatches, its gradient, the update.

Terms are sums and counts, so that the gradient is that of the whole batch however it is cut. What a microbatch has to
be divided by is known only when all are counted: where a system does not tell counts from batches alone, a pass without
gradients counts them first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from rec.batch import Batch
from rec.errors import TrainingError
from rec.moe.layer import layers_of
from rec.systems.api import System
from rec.terms import Term
from rec.train.engine import Engine
from rec.train.phases import Stretch
from rec.train.progress import Progress
from rec.train.validation import counted_terms

Totals = Mapping[str, tuple[float, float]]
"""Sum and count of each term over all ranks and microbatches."""


@dataclass(frozen=True, slots=True)
class Update:
    """What one step is made with."""

    system: System[Any, Any]
    stretch: Stretch
    engine: Engine
    progress: Progress
    seed: Callable[[int], None]
    """Seeds what is random in a microbatch, given its place in the step."""

    def __call__(self, micro: Sequence[tuple[Batch, bool]], rate: float, wish: bool) -> tuple[dict[str, float], bool]:
        """Make the step; return the global mean of each term, and whether rank 0 wishes for a checkpoint.

        Raises:
            TrainingError: the loss or its gradient is not finite.
        """
        mixtures = list(layers_of(self.engine.module))
        before = [layer.usage.total for _, layer in mixtures]
        values, weight, wished = self._one(*micro[0], wish) if len(micro) == 1 else self._many(micro, wish)
        norm = self.engine.step(rate)
        if not math.isfinite(norm):
            raise TrainingError(f"{self._place()}: the gradient's norm is {norm}")
        for (_, layer), total in zip(mixtures, before, strict=True):
            if len(micro) > 1:
                layer.usage.last = layer.usage.total - total.to(layer.usage.total.device)
            layer.after_step()
        return {name: value * weight[name] for name, value in values.items()}, wished

    def _one(self, batch: Batch, counts: bool, wish: bool) -> tuple[dict[str, float], dict[str, float], bool]:
        terms = self._terms(batch, counts)
        totals, wished = self._summed(terms, _table(terms) * float(counts), wish)
        values = self._noted(terms, totals)
        weight = {name: term.weight_in(values) for name, term in terms.items()}
        self.engine.backward(self._part(terms, totals, weight, counts))
        return values, weight, wished

    def _many(self, micro: Sequence[tuple[Batch, bool]], wish: bool) -> tuple[dict[str, float], dict[str, float], bool]:
        ahead = self._told(micro)
        known = self._counted(micro) if ahead is None else ahead
        own, weight, terms = torch.zeros(0, 2, dtype=torch.float64), {}, {}
        for place, (batch, counts) in enumerate(micro):
            self.seed(place)
            terms = self._terms(batch, counts)
            if ahead is not None and (wrong := _unlike(terms, ahead)):
                raise TrainingError(f"{type(self.system).__name__}.counts: {wrong}")
            means = {name: term.value_of(*known[name]) for name, term in terms.items()}
            weight = {name: term.weight_in(means) for name, term in terms.items()}
            table = _table(terms) * float(counts)
            own = own + table if len(own) else table
            self.engine.backward(self._part(terms, known, weight, counts), last=place + 1 == len(micro))
        totals, wished = self._summed(terms, own, wish)
        return self._noted(terms, totals), weight, wished

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
        """Return sums and counts by a pass without gradients, which leaves no traces."""
        own = torch.zeros(0, 2, dtype=torch.float64)
        terms: dict[str, Term] = {}
        with torch.no_grad(), _as_it_was(self.engine):
            for place, (batch, counts) in enumerate(micro):
                self.seed(place)
                terms = self._terms(batch, counts)
                table = _table(terms) * float(counts)
                own = own + table if len(own) else table
        return self._summed(terms, own, False)[0]

    def _terms(self, batch: Batch, counts: bool) -> dict[str, Term]:
        for _, layer in layers_of(self.engine.module):
            layer.counting = counts or layer.replicated
        return counted_terms(self.system.loss(self.engine, batch.to(self.engine.device)), self.stretch)

    def _summed(self, terms: Mapping[str, Term], own: Tensor, wish: bool) -> tuple[Totals, bool]:
        """Return sums and counts over all ranks, and whether rank 0 has a wish."""
        asked = torch.tensor([[float(wish and self.engine.rank == 0), 0.0]], dtype=torch.float64)
        total = self.engine.sum_over_ranks(torch.cat([own, asked]))
        pairs = zip(terms, total[:-1].tolist(), strict=True)
        return {name: (value, count) for name, (value, count) in pairs}, bool(total[-1, 0])

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

    def _part(self, terms: Mapping[str, Term], totals: Totals, weight: Mapping[str, float], counts: bool) -> Tensor:
        """Return what to differentiate here."""
        parts = [
            term.part_of(*totals[name]) * (weight[name] * float(counts) * self.engine.world_size)
            for name, term in terms.items()
        ]
        return torch.stack([part.float() for part in parts]).sum()

    def _place(self) -> str:
        return f"epoch {self.progress.epoch} step {self.progress.step}"


def _table(terms: Mapping[str, Term]) -> Tensor:
    """Return this rank's sum and count of each term, float64 (terms, 2)."""
    return torch.stack(
        [torch.stack([term.sum.detach().double().cpu(), _double(term.count)]) for term in terms.values()]
    )


def _double(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).cpu()


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
    parts = [part for part in engine.module.modules() if isinstance(part, _BatchNorm)]
    running = [value for part in parts for value in part.buffers(recurse=False)]
    kept = [value.clone() for value in running]
    yield
    for usage, (total, last) in zip(usages, counted, strict=True):
        usage.total, usage.last = total, last
    for value, was in zip(running, kept, strict=True):
        value.copy_(was)
