"""Optimiser steps of any system on rows of a data set, beside the bare products that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rec.benchmarks.products import bare, recorded
from rec.config import RunConfig
from rec.data.prepared import open_prepared
from rec.data.stream import to_columns
from rec.terms import Term
from rec.train.engine import LocalEngine
from rec.train.job import build


class Steps:
    """The first steps of an epoch: rows become batches, batches gradients, gradients new weights."""

    def __init__(self, config: RunConfig, count: int, phase: str = "") -> None:
        """Make the model; `phase` names the phase of training, "" where all of the model counts."""
        data, size = open_prepared(config), config.train.batch_size
        rows = data.rows("train")
        self.in_epoch = -(-len(rows) // size)
        self.count = min(count, self.in_epoch)
        self.parts = [rows.slice(number * size, size) for number in range(self.count)]
        torch.manual_seed(0)
        self.system = build(config, data)
        self.engine = LocalEngine(self.system.model(), config.train)
        self.rate = config.train.learning_rate
        setattr(self.engine.module, "phase", phase)  # noqa: B010 (a module's attributes are typed as tensors and modules)
        self.engine.module.train()
        self.system.start_epoch(self.engine.module, 0)

    @property
    def epochs(self) -> float:
        """How many times as much an epoch is."""
        return self.in_epoch / self.count

    def __call__(self) -> None:
        """Make the steps."""
        for part in self.parts:
            terms = self.system.loss(self.engine, self.system.collate(to_columns(part)))
            self.engine.backward(weighted(terms))
            self.engine.step(self.rate)

    def bare(self) -> Callable[[], None]:
        """Return an action that makes just the products and gathers of these steps, both ways."""
        return bare(recorded(self))


def weighted(terms: Mapping[str, Term]) -> Any:
    """Return the sum of a batch's terms with their weights."""
    total = {name: (float(term.sum.detach()), float(term.count)) for name, term in terms.items()}
    value = {name: term.value_of(*total[name]) for name, term in terms.items()}
    return torch.stack([term.part_of(*total[name]) * term.weight_in(value) for name, term in terms.items()]).sum()
