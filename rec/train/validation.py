"""The loss on validation, for phases that are judged by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from torch import nn

from rec.batch import Batch
from rec.errors import TrainingError
from rec.moe.layer import layers_of
from rec.moe.step import step_counts_of
from rec.seeds import derive
from rec.systems.api import System
from rec.terms import Term, table_of
from rec.train.engine import Engine
from rec.train.phases import VALIDATION_LOSS, Stretch
from rec.transfer import to_host


def counted_terms(terms: dict[str, Term], stretch: Stretch) -> dict[str, Term]:
    """Return the terms of a loss that count in a phase.

    Raises:
        TrainingError: none does.
    """
    globs: Sequence[str] = stretch.phase.terms
    found = {name: term for name, term in terms.items() if any(fnmatch(name, glob) for glob in globs)}
    if not found:
        raise TrainingError(f"phase {stretch.phase.name!r}: no loss term matches {globs}; there are {sorted(terms)}")
    return found


def let_count(module: nn.Module, counts: bool) -> None:
    """Let mixtures inside a module know whether the next batch counts, or only keeps step with other workers."""
    for _, layer in layers_of(module):
        layer.counting = counts or layer.replicated
    for whole in step_counts_of(module):
        whole.counting = counts
        whole.start()


def is_loss(metric: str) -> bool:
    """Return whether a metric is the loss on validation or a term of it."""
    return metric == VALIDATION_LOSS or metric.startswith(f"{VALIDATION_LOSS}/")


@torch.no_grad()
def validation_loss(
    system: System[Any, Any], stretch: Stretch, engine: Engine, batches: Iterator[tuple[Batch, bool]]
) -> dict[str, float | None]:
    """Return `val_loss`, the weighted sum of the terms' means, and `val_loss/TERM`, over all ranks' batches.

    What no row counts for is None.

    A batch is seeded by its place among those of all ranks, so that what its loss draws does not depend on their
    number (the rows of the last, shorter round are cut by it).
    """
    engine.module.eval()
    own: torch.Tensor | None = None
    last: dict[str, Term] = {}
    for number, (batch, counts) in enumerate(batches):
        place = number * engine.world_size + engine.rank
        torch.manual_seed(derive(stretch.config.seed, VALIDATION_LOSS, stretch.index, place))
        let_count(engine.module, counts)
        last = counted_terms(system.loss(engine, batch.to(engine.device)), stretch)
        table = table_of(last, engine.device) * float(counts)
        own = table if own is None else own + table
    if own is None:
        raise TrainingError("validation has no rows, so there is no loss to judge by")
    (total,) = to_host([engine.sum_over_ranks(own)])
    means = {
        name: term.value_of(value, count) if count else None
        for (name, term), (value, count) in zip(last.items(), total.tolist(), strict=True)
    }
    known = {name: value for name, value in means.items() if value is not None}
    weighted = [last[name].weight_in(known) * value for name, value in known.items()]
    return {
        VALIDATION_LOSS: sum(weighted) if weighted else None,
        **{f"{VALIDATION_LOSS}/{name}": value for name, value in means.items()},
    }
