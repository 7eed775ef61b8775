"""A step of one rank as a run would make it, in this process, with note of what it would keep and send.

The other ranks are stood for: sums give back what is put in, and rows of tables that others hold are drawn. So losses
and weights mean nothing afterwards; numbers of rows, calls and bytes are those of the run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.cluster.traffic import Mixture, TableLookup
from rec.moe.layer import Mixed, MixtureOfExperts, layers_of
from rec.moe.ranks import Later, Waiting
from rec.nn.sharded import ShardedEmbedding, tables_of, update_tables
from rec.seeds import derive
from rec.systems.api import System
from rec.train.phases import Stretch
from rec.train.progress import TrainingProgress
from rec.train.replicas import replicated_of, start_step
from rec.train.update import Update


@dataclass(slots=True)
class Noted:
    """What a rank has kept and sent in a step."""

    mixtures: list[Mixture] = field(default_factory=list)
    choices: dict[str, int] = field(default_factory=dict)
    """Experts of a row, by the layer's name."""
    tables: list[TableLookup] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)
    """Bytes of each sum over ranks."""
    saved: list[int] = field(default_factory=list)
    """Bytes that the forward of each microbatch has kept for its backward."""

    @property
    def activations(self) -> int:
        """Return the most that is kept at once."""
        return max(self.saved, default=0)


class _Others:
    """The other ranks, as mixture layers ask for them."""

    def __init__(self, noted: Noted) -> None:
        self.noted, self.waiting = noted, Waiting(self.sum)

    def sum(self, value: Tensor) -> Tensor:
        """Return `value`."""
        self.noted.sums.append(value.nbytes)
        return value

    def sum_later(self, value_X: Tensor) -> Later:
        """Return `value_X`, which is counted with all others that wait when one is asked for."""
        return self.waiting.add(value_X)

    def join(self, value_A: Tensor) -> tuple[Tensor, int]:
        """Return `value_A` and 0."""
        return value_A, 0


class _Owners:
    """The ranks that share a table, of which this is the first."""

    rank = 0

    def __init__(self, noted: Noted, table: ShardedEmbedding, workers: int) -> None:
        self.noted, self.table, self.world_size = noted, table, workers
        self.waits = False
        """Whether vectors of the last lookup have not come yet; those that come without one are gradients."""

    def counts(self, count_P: Tensor) -> Tensor:
        """Return `count_P`: others ask for as much as they are asked for."""
        asked: list[int] = count_P.tolist()
        total = sum(asked)
        share = tuple(count / max(1, total) for count in asked)
        self.noted.tables.append(TableLookup(asked=total, width=self.table.width, backward=False, places=share))
        self.waits = True
        return count_P

    def exchange(self, value: Tensor, sizes_out: Sequence[int], sizes_in: Sequence[int]) -> Tensor:
        """Return indices of 0, or drawn vectors."""
        shape = (sum(sizes_in), *value.shape[1:])
        if not value.is_floating_point():
            return value.new_zeros(shape)
        if not self.waits:
            self._note_gradients(len(value))
        self.waits = False
        return torch.randn(shape) * self.table.std

    def _note_gradients(self, rows: int) -> None:
        """Note that gradients come back for the last lookup of so many rows."""
        found = self.noted.tables
        for place in reversed(range(len(found))):
            if found[place].asked == rows and not found[place].backward:
                found[place] = replace(found[place], backward=True)
                return

    def sum(self, value: Tensor) -> Tensor:
        """Return `value`."""
        self.noted.sums.append(value.nbytes)
        return value


class _Engine:
    """Forward and backward of the first rank; an update only takes gradients away."""

    rank = 0
    device = torch.device("cpu")

    def __init__(self, module: nn.Module, noted: Noted, workers: int, saved: Counter[str]) -> None:
        self.module, self.noted, self.world_size, self.saved = module, noted, workers, saved

    def __call__(self, batch: Batch) -> Any:
        """Return the model's output."""
        return self.module(batch)

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        """Note what the forward has kept, and go back through it."""
        self.noted.saved.append(self.saved.total())
        loss.backward()
        self.saved.clear()

    def step(self, rate: float) -> Tensor:
        """Take the gradients away and return a norm."""
        for parameter in self.module.parameters():
            parameter.grad = None
        update_tables(self.module, rate=0.0, world_size=1, clip_norm=math.inf, total=self.sum_over_ranks)
        return torch.ones(())

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """Return `value`."""
        if self.world_size > 1:
            self.noted.sums.append(value.nbytes)
        return value

    def gather(self, value: Any) -> list[Any]:
        """Return the value for every rank."""
        return [value] * self.world_size


def rehearse(
    system: System[Any, Any],
    stretch: Stretch,
    module: nn.Module,
    micro: Sequence[tuple[Batch, bool]],
    *,
    workers: int,
) -> Noted:
    """Return what the first of some workers keeps and sends in a step of a phase with these microbatches.

    The module is of no use afterwards; its parameters that move are chosen.
    """
    noted, saved = Noted(), Counter[str]()
    for _, layer in layers_of(module):
        if workers > 1 and not layer.replicated:
            layer.ranks = _Others(noted)
    for _, table in tables_of(module):
        if workers > 1 and table.ranks is None:
            table.share(_Owners(noted, table, workers), torch.device("cpu"))
        elif isinstance(table.ranks, _Owners):
            table.ranks.noted = noted
    module.train()
    system.start_epoch(module, 0)
    seed = stretch.config.seed

    def seeded(place: int) -> None:
        torch.manual_seed(derive(seed, "step", stretch.index, place))
        if not place:
            start_step(replicated_of(module), seed, stretch.index, 0)

    engine: Any = _Engine(module, noted, workers, saved)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    with _heard(module, noted), torch.autograd.graph.saved_tensors_hooks(_counting(own, saved), lambda value: value):
        seeded(0)
        Update(system, stretch, engine, TrainingProgress(phase=stretch.index), seeded)(micro, 0.0, False)
    return noted


def _counting(own: set[int], saved: Counter[str]) -> Callable[[Tensor], Tensor]:
    """Return what notes the memory of tensors that are kept for a backward, each once, without the model's own."""

    def count(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            saved[str(storage.data_ptr())] = storage.nbytes()
        return value

    return count


@contextmanager
def _heard(module: nn.Module, noted: Noted) -> Iterator[None]:
    """Note every call of a mixture layer whose experts are spread."""

    def hear(name: str, layer: MixtureOfExperts, given: tuple[Any, ...], mixed: Mixed) -> None:
        if isinstance(given[0], Mixed):
            return
        count_E, choices = mixed.order.count_E, mixed.routing.expert_NK.shape[1]
        noted.choices[name] = choices
        even = float(count_E.sum()) / layer.num_experts
        noted.mixtures.append(
            Mixture(
                rows=float(count_E.sum()) / choices,
                choices=choices,
                experts=layer.num_experts,
                width=given[0].shape[1],
                out=mixed.y_ND.shape[1],
                number_bytes=given[0].element_size(),
                backward=torch.is_grad_enabled() and not layer.repeating,
                capacity=bool(layer.capacity_factor) and layer.training,
                fullest=float(count_E.max()) / even if even else 1.0,
            )
        )

    layers = [(name, layer) for name, layer in layers_of(module) if not layer.replicated]
    handles = [layer.register_forward_hook(partial(hear, name)) for name, layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
