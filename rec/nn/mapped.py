"""A graph of users and items whose edges stay in files: rows are read when they are asked for.

What is in memory grows with the nodes, not with the edges.

Letters: U users, I items with padding as item 0, N = U + I nodes (users, then items), E edges in the order of users, F
the same edges in the order of items, R rows and X some of them, M entries of rows, D width.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import numpy as np
import torch
from torch import Tensor

EDGES_AT_ONCE = 1 << 22
BIN_SHIFT = 46
"""Bits that a float64 loses to become its bin: the sign, the exponent and 6 bits of the mantissa are left."""


class MappedRows:
    """A sparse matrix whose entries are made when they are asked for."""

    first_R: Tensor
    """Where each row's entries begin, and the end of the last one's, int64 (R + 1,)."""
    num_columns: int

    def entries(self, row_M: Tensor, place_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return columns and values of the entries at these places, which are in these rows."""
        raise NotImplementedError

    def spans(self, row_X: Tensor) -> tuple[Tensor, Tensor]:
        """Return where rows begin and how many entries they have."""
        first_X = self.first_R[row_X]
        return first_X, self.first_R[row_X + 1] - first_X

    def to(self, device: torch.device) -> Self:
        """Return this: rows are read by the processor, wherever their vectors are."""
        return self

    def __matmul__(self, x_ND: Tensor) -> Tensor:
        """Return the product with dense vectors, block by block of rows, (R, D)."""
        parts = []
        first, rows = 0, len(self.first_R) - 1
        while first < rows:
            most = torch.searchsorted(self.first_R, self.first_R[first] + EDGES_AT_ONCE, right=True)
            last = min(rows, max(first + 1, int(most) - 1))
            crow_R = self.first_R[first : last + 1]
            row_M = torch.repeat_interleave(torch.arange(first, last), crow_R.diff())
            column_M, value_M = self.entries(row_M, torch.arange(int(crow_R[0]), int(crow_R[-1])))
            shape = last - first, self.num_columns
            with quiet():
                block = torch.sparse_csr_tensor(crow_R - crow_R[0], column_M, value_M, shape, check_invariants=False)
            parts.append(block.to(x_ND.device) @ x_ND)
            first = last
        return torch.cat(parts)


class MappedGraph(MappedRows):
    """D^-1/2 A D^-1/2 of the graph of users and items; see `rec.nn.graph.bipartite`.

    Args:
        count_U: Edges of each user.
        count_I: Edges of each item.
        item_E: The edges' items, user by user.
        user_F: The edges' users, item by item.
        place_F: Those edges' places in `item_E`; None for a graph that nothing is drawn from.
    """

    def __init__(
        self, count_U: Tensor, count_I: Tensor, item_E: Tensor, user_F: Tensor, place_F: Tensor | None = None
    ) -> None:
        self.num_users, self.item_E, self.user_F, self.place_F = len(count_U), item_E, user_F, place_F
        count_N = torch.cat([count_U, count_I])
        self.num_columns = len(count_N)
        self.first_R = torch.nn.functional.pad(count_N.cumsum(0), (1, 0))
        self.scale_N = torch.where(count_N > 0, count_N.clamp(min=1).float().rsqrt(), 0.0)

    @classmethod
    def of(cls, tables: Mapping[str, np.ndarray]) -> MappedGraph:
        """Return the graph of a prepared data set's tables."""
        count_U, count_I, edge_E2, user_F, place_F = (
            torch.from_numpy(np.asarray(tables[name]))
            for name in ("user_count", "item_count", "edge_train", "edge_by_item_user", "edge_by_item_place")
        )
        return cls(count_U, count_I, edge_E2[:, 1], user_F, place_F)

    def entries(self, row_M: Tensor, place_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return columns and values of the entries at these places, which are in these rows."""
        edges = len(self.item_E)
        of_user_M = place_M < edges
        column_M = torch.empty_like(place_M)
        column_M[of_user_M] = self.item_E[place_M[of_user_M]].long() + self.num_users
        column_M[~of_user_M] = self.user_F[place_M[~of_user_M] - edges].long()
        return column_M, self.scale_N[row_M] * self.scale_N[column_M]

    def has(self, user_X: Tensor, item_X: Tensor) -> Tensor:
        """Return whether there is an edge between users and items (numbers from 0 and from 1), bool (X,)."""
        first_X, count_X = self.spans(user_X)
        pair_M = torch.repeat_interleave(count_X)
        place_M = torch.arange(len(pair_M)) - (count_X.cumsum(0) - count_X - first_X)[pair_M]
        found_X = torch.zeros(len(user_X), dtype=torch.bool)
        found_X[pair_M[self.item_E[place_M] == item_X[pair_M]]] = True
        return found_X

    def drawn(self, share: float, seed: int) -> MappedGraph:
        """Return the graph of a share of the edges, drawn as `rec.nn.graph.drawn_edges` does, kept in scratch files."""
        assert self.place_F is not None
        kept_E = self._kept(max(1, int(share * len(self.item_E))), seed)
        kept = int(kept_E.sum())
        item_K, user_K = scratch(kept), scratch(kept)
        users, items = self.num_users, self.num_columns - self.num_users
        count_U, count_I = torch.zeros(users, dtype=torch.int64), torch.zeros(items, dtype=torch.int64)
        end = 0
        for first, last in blocks(len(self.item_E)):
            chosen_M = kept_E[first:last]
            item_M = self.item_E[first:last][chosen_M]
            item_K[end : end + len(item_M)] = item_M
            count_U += torch.bincount(self._users(first, last)[chosen_M], minlength=users)
            count_I += torch.bincount(item_M, minlength=items)
            end += len(item_M)
        end = 0
        for first, last in blocks(len(self.user_F)):
            user_M = self.user_F[first:last][kept_E[self.place_F[first:last]]]
            user_K[end : end + len(user_M)] = user_M
            end += len(user_M)
        return MappedGraph(count_U, count_I, item_K, user_K)

    def _users(self, first: int, last: int) -> Tensor:
        """Return the users of some edges in the order of users."""
        return torch.searchsorted(self.first_R[: self.num_users + 1], torch.arange(first, last), right=True) - 1

    def _clocks(self, seed: int) -> Iterator[tuple[int, Tensor]]:
        """Yield when the edges' clocks ring, block by block: those of `rec.nn.graph.drawn_edges`."""
        count_N = self.first_R.diff().double()
        for number, (first, last) in enumerate(blocks(len(self.item_E))):
            generator = torch.Generator().manual_seed(seed + number)
            clock_M = torch.empty(last - first, dtype=torch.float64).exponential_(generator=generator)
            item_M = self.item_E[first:last].long() + self.num_users
            yield first, clock_M * (count_N[self._users(first, last)] * count_N[item_M]).sqrt()

    def _kept(self, count: int, seed: int) -> Tensor:
        """Return which edges' clocks are among the first `count` to ring, bool (E,).

        Clocks are counted in bins first, and only those of the bin where `count` is reached are sorted.
        """
        full = torch.zeros(1 << (63 - BIN_SHIFT), dtype=torch.int64)
        for _, clock_M in self._clocks(seed):
            full += torch.bincount(bins(clock_M), minlength=len(full))
        last = int(torch.searchsorted(full.cumsum(0), count))
        kept_E = torch.empty(len(self.item_E), dtype=torch.bool)
        open_places, open_clocks = [], []
        for first, clock_M in self._clocks(seed):
            bin_M = bins(clock_M)
            kept_E[first : first + len(clock_M)] = bin_M < last
            between_M = (bin_M == last).nonzero()[:, 0]
            open_places.append(first + between_M)
            open_clocks.append(clock_M[between_M])
        order = torch.cat(open_clocks).argsort()
        kept_E[torch.cat(open_places)[order[: count - int(full[:last].sum())]]] = True
        return kept_E


class MappedProfile(MappedRows):
    """The matrix that takes items to their means over each user's; see `rec.nn.graph.profiles`."""

    def __init__(self, graph: MappedGraph) -> None:
        self.item_E = graph.item_E
        self.first_R = graph.first_R[: graph.num_users + 1]
        self.num_columns = graph.num_columns - graph.num_users
        self.weight_R = 1 / self.first_R.diff().clamp(min=1)

    def entries(self, row_M: Tensor, place_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return columns and values of the entries at these places, which are in these rows."""
        return self.item_E[place_M].long(), self.weight_R[row_M]


class MappedJoint(MappedRows):
    """D^-1/2 (A + B) D^-1/2, where A are interactions in files and B further edges in memory, such as content graphs.

    Args:
        graph: The interactions.
        row_B: Rows of the further edges, which are given in both directions.
        column_B: Their columns.
        weight_B: Their weights; interactions weigh 1.
    """

    def __init__(self, graph: MappedGraph, row_B: Tensor, column_B: Tensor, weight_B: Tensor) -> None:
        order_B = row_B.argsort(stable=True)
        self.graph, self.num_columns = graph, graph.num_columns
        self.column_B, self.weight_B = column_B[order_B], weight_B[order_B]
        count_N, more_N = graph.first_R.diff(), torch.bincount(row_B, minlength=self.num_columns)
        self.more_R = torch.nn.functional.pad(more_N.cumsum(0), (1, 0))
        self.first_R = graph.first_R + self.more_R
        degree_N = count_N.double().index_add_(0, row_B, weight_B.double())
        self.scale_N = torch.where(degree_N > 0, degree_N.clamp(min=1e-12).rsqrt(), 0.0).float()

    def entries(self, row_M: Tensor, place_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return columns and values of the entries at these places, which are in these rows: interactions first."""
        offset_M = place_M - self.first_R[row_M]
        count_M = self.graph.first_R[row_M + 1] - self.graph.first_R[row_M]
        seen_M = offset_M < count_M
        column_M, value_M = torch.empty_like(place_M), torch.ones(len(place_M))
        row_S = row_M[seen_M]
        column_M[seen_M] = self.graph.entries(row_S, self.graph.first_R[row_S] + offset_M[seen_M])[0]
        more_M = self.more_R[row_M[~seen_M]] + offset_M[~seen_M] - count_M[~seen_M]
        column_M[~seen_M], value_M[~seen_M] = self.column_B[more_M], self.weight_B[more_M]
        return column_M, value_M * self.scale_N[row_M] * self.scale_N[column_M]


def bins(clock_M: Tensor) -> Tensor:
    """Return bins that rise with positive float64 numbers."""
    return clock_M.view(torch.int64) >> BIN_SHIFT


def blocks(count: int) -> Iterator[tuple[int, int]]:
    """Yield the ends of blocks of edges."""
    for first in range(0, count, EDGES_AT_ONCE):
        yield first, min(count, first + EDGES_AT_ONCE)


@contextmanager
def quiet() -> Iterator[None]:
    """Let no warning through: CSR tensors are announced as new, each time in another place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def scratch(count: int) -> Tensor:
    """Return an int32 tensor (count,) in a temporary file that goes with it."""
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, np.int32, "w+", shape=(max(1, count),))[:count])
