"""A table of vectors whose rows lie on several ranks, looked up by index and updated where a step touched it.

A rank holds a run of consecutive rows. A lookup asks every rank once for the rows that it holds, each row once, and
gradients go back the same way; neither the table nor its gradient is ever whole anywhere.

Letters: I rows of the table, L of them on this rank, U distinct rows asked for, Q rows that others ask this rank for,
T rows that a step touched, D width, P ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rec.seeds import derive

DRAWN_AT_ONCE = 1 << 16
"""Rows that one generator draws, so that a rank draws its own alone, and the same as any other number of ranks."""
EPSILON = 1e-8
SLOT = "square"
"""The optimiser's slot of a table: the sum of each row's mean squared gradients."""


class ShardRanks(Protocol):
    """What a table asks of the ranks that share it, which all make the same calls in the same order."""

    rank: int
    world_size: int

    def counts(self, count_P: Tensor) -> Tensor:
        """Return how many come from each rank, for how many go to each."""

    def exchange(self, value: Tensor, sizes_out: Sequence[int], sizes_in: Sequence[int]) -> Tensor:
        """Return the rows that come from all ranks, in their order, for those that go to each."""

    def sum(self, value: Tensor) -> Tensor:
        """Return the elementwise sum over ranks."""


@dataclass(frozen=True, slots=True)
class RowLookup:
    """A lookup: how many rows this rank asks each rank for, and which of its own rows are asked for by each."""

    asked: list[int]
    answered: list[int]
    local_Q: Tensor


class ShardedEmbedding(nn.Module):
    """Vectors by index, float32 whatever the model computes in; row 0 is padding, zero and never updated.

    The rows are no parameter: no engine collects or updates them, but `update` does. In one process all are here.
    Start values follow from the seed alone, whatever the number of ranks.

    Args:
        rows: I, padding included.
        width: D.
        std: Standard deviation of start values.
        seed: What they follow from.
        rate: Factor of the run's learning rate.
    """

    weight_LD: Tensor
    square_L: Tensor
    """Sum of each row's mean squared gradients over the steps that touched it."""

    def __init__(self, rows: int, width: int, *, std: float = 0.02, seed: int = 0, rate: float = 1.0) -> None:
        super().__init__()
        self.rows, self.width, self.std, self.seed, self.rate = rows, width, std, seed, rate
        self.ranks: ShardRanks | None = None
        self.first = 0
        self.waiting: list[tuple[Tensor, Tensor]] = []
        """(row of this rank, gradient) of the passes since the last update."""
        self.made = False

    @property
    def weight(self) -> Tensor:
        """Return the rows that this rank holds, (L, D); they are drawn when they are first asked for."""
        if not self.made:
            self._make(0, self.rows, torch.device("cpu"))
        return self.weight_LD

    @property
    def count(self) -> int:
        """Return how many rows this rank holds."""
        return len(self.weight)

    def share(self, ranks: ShardRanks, device: torch.device) -> None:
        """Keep this rank's run of rows, and look the others up where they are."""
        if ranks.world_size > 1:
            each = -(-self.rows // ranks.world_size)
            first, end = (min(each * number, self.rows) for number in (ranks.rank, ranks.rank + 1))
            if self.made:
                self.weight_LD, self.square_L = self.weight_LD[first:end].clone(), self.square_L[first:end].clone()
            else:
                self._make(first, end, device)
            self.first, self.ranks = first, ranks
        self.to(device)

    def _make(self, first: int, end: int, device: torch.device) -> None:
        self.weight_LD = torch.empty(end - first, self.width, device=device)
        self.square_L = torch.zeros(end - first, device=device)
        for start in range(first // DRAWN_AT_ONCE * DRAWN_AT_ONCE, end, DRAWN_AT_ONCE):
            generator = torch.Generator().manual_seed(derive(self.seed, "rows", start))
            drawn = torch.randn(min(DRAWN_AT_ONCE, self.rows - start), self.width, generator=generator) * self.std
            low, high = max(start, first), min(start + len(drawn), end)
            self.weight_LD[low - first : high - first] = drawn[low - start : high - start]
        if not first and end:
            self.weight_LD[0] = 0
        self.made = True

    def forward(self, index: Tensor) -> Tensor:
        """Return the vectors of some rows, (..., D)."""
        index_U, place = index.unique(return_inverse=True)
        return nn.functional.embedding(place, self.vectors(index_U))

    def vectors(self, index_U: Tensor) -> Tensor:
        """Return the vectors of rows that rise, (U, D); one exchange of counts, of indices and of vectors."""
        if torch.is_grad_enabled():
            # The rows are no leaf of the graph: this stands for them.
            anchor = torch.zeros((), device=index_U.device, requires_grad=True)
            found: Tensor = _Lookup.apply(anchor, index_U, self)
            return found
        return self.fetch(self.route(index_U))

    def route(self, index_U: Tensor) -> RowLookup:
        """Return who is asked for which of some rows, which rise, and what this rank is asked for."""
        if self.ranks is None:
            return RowLookup([len(index_U)], [len(index_U)], index_U)
        each = -(-self.rows // self.ranks.world_size)
        edge_P = torch.arange(self.ranks.world_size + 1, device=index_U.device) * each
        asked_P = torch.searchsorted(index_U, edge_P).diff()
        sizes = torch.stack([asked_P, self.ranks.counts(asked_P)]).tolist()
        index_Q = self.ranks.exchange(index_U, sizes[0], sizes[1])
        return RowLookup(sizes[0], sizes[1], index_Q - self.first)

    def fetch(self, route: RowLookup) -> Tensor:
        """Return the vectors that a route asks for, (U, D)."""
        answer_QD = self.weight[route.local_Q]
        return answer_QD if self.ranks is None else self.ranks.exchange(answer_QD, route.answered, route.asked)

    def range(self, items: slice) -> Tensor:
        """Return the vectors of a range of rows, (W, D); every rank asks for the same range at the same time."""
        if self.ranks is None:
            return self.weight[items]
        start, end, _ = items.indices(self.rows)
        found = torch.zeros(end - start, self.width, device=self.weight.device)
        first, last = max(start, self.first), min(end, self.first + self.count)
        if first < last:
            found[first - start : last - start] = self.weight[first - self.first : last - self.first]
        return self.ranks.sum(found)

    def touched(self) -> tuple[Tensor, Tensor]:
        """Return this rank's rows with gradients that wait, and their sums, (T,) and (T, D); none wait afterwards."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return torch.zeros(0, dtype=torch.int64, device=self.weight.device), self.weight[:0]
        local, grad = (torch.cat(parts) for parts in zip(*waiting, strict=True))
        local_T, place = local.unique(return_inverse=True)
        grad_TD = torch.zeros(len(local_T), self.width, device=grad.device).index_add_(0, place, grad)
        kept_T = local_T + self.first > 0
        return local_T[kept_T], grad_TD[kept_T]

    @torch.no_grad()
    def update(self, local_T: Tensor, grad_TD: Tensor, rate: float) -> None:
        """Move rows by row-wise Adagrad: a rate per row, which falls with the mean of its squared gradients so far.

        A row without a gradient stays as it is, as it would if the whole table had a gradient.
        Source: Duchi et al. 2011, one sum per row as in Mudigere et al. 2022 (section 4.1.4).
        """
        square_T = self.square_L[local_T] + grad_TD.square().mean(1)
        self.square_L[local_T] = square_T
        self.weight[local_T] -= (rate * self.rate) * grad_TD / (square_T.sqrt() + EPSILON)[:, None]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ShardedEmbedding:
        """Move to another device; the type stays."""
        if self.made:
            device = fn(torch.zeros(())).device
            self.weight_LD, self.square_L = self.weight_LD.to(device), self.square_L.to(device)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.weight

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        name = f"{prefix}weight"
        given = state_dict.get(name)
        if given is None:
            missing_keys.append(name)
        elif local_metadata.get("assign_to_params_buffers", False) and tuple(given.shape) == (self.rows, self.width):
            # Rows in a file that is mapped stay there; none of them is updated.
            self.weight_LD, self.square_L, self.made = given, given.new_zeros(0), True
        elif given.shape != self.weight.shape:
            error_msgs.append(f"{name}: has shape {tuple(given.shape)}, expected {tuple(self.weight.shape)}")
        else:
            self.weight_LD.copy_(given)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, index_U: Tensor, table: ShardedEmbedding) -> Tensor:
        ctx.table, ctx.route = table, table.route(index_U)
        return table.fetch(ctx.route)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_UD: Tensor) -> tuple[None, None, None]:
        table, route = ctx.table, ctx.route
        grad = grad_UD.float()
        if table.ranks is not None:
            grad = table.ranks.exchange(grad, route.asked, route.answered)
        table.waiting.append((route.local_Q, grad))
        return None, None, None


def tables_of(module: nn.Module) -> Iterator[tuple[str, ShardedEmbedding]]:
    """Yield the sharded tables inside a module, with their names."""
    for name, part in module.named_modules():
        if isinstance(part, ShardedEmbedding):
            yield name, part


def is_sharded(module: nn.Module) -> bool:
    """Return whether rows of a table inside a module lie on several ranks, which then all make the same calls."""
    return any(table.ranks is not None for _, table in tables_of(module))


def update_tables(
    module: nn.Module, *, rate: float, world_size: int, clip_norm: float, total: Callable[[Tensor], Tensor]
) -> float:
    """Update every table by the mean over ranks of the gradients that wait, and return their norm before clipping.

    Tables are clipped by a norm of their own: dense parameters by theirs, which not every engine tells before it clips.

    Args:
        module: What holds the tables.
        rate: Learning rate.
        world_size: Ranks, over which gradients are averaged.
        clip_norm: Largest norm of the tables' gradients; infinite does not clip.
        total: The sum over ranks.
    """
    found = [(table, *table.touched()) for _, table in tables_of(module)]
    if not found:
        return 0.0
    squares = torch.stack([grad_TD.double().square().sum() for _, _, grad_TD in found]).sum()
    norm = float(total(squares).sqrt()) / world_size
    scale = 1 / world_size * (clip_norm / (norm + 1e-6) if norm > clip_norm else 1.0)
    for table, local_T, grad_TD in found:
        table.update(local_T, grad_TD * scale, rate)
    return norm
