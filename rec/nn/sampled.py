"""Propagation to a few nodes over drawn neighbours, whose cost does not grow with the graph.

Letters: N nodes of the graph, X nodes asked for, Y their neighbours, M edges taken, E edges, D width, L layers.
Source of the idea: Hamilton, Ying, Leskovec 2017 (GraphSAGE), algorithm 2; here the estimate has no bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rec.nn.graph import adjacency, product
from rec.nn.mapped import MappedRows


class Near(NamedTuple):
    """Some rows of a sparse matrix over the columns that they need."""

    node_Y: Tensor
    """The columns, rising."""
    matrix_XY: Tensor
    matrix_YX: Tensor

    def times(self, x_YD: Tensor) -> Tensor:
        """Return the rows times vectors of the columns, (X, D)."""
        return product(self.matrix_XY, x_YD, self.matrix_YX)


class CSRRows(NamedTuple):
    """The rows of a CSR matrix, read as those of `MappedRows`."""

    matrix: Tensor

    def spans(self, row_X: Tensor) -> tuple[Tensor, Tensor]:
        """Return where rows begin and how many entries they have."""
        first_N = self.matrix.crow_indices()
        return first_N[row_X], first_N[row_X + 1] - first_N[row_X]

    def entries(self, row_M: Tensor, place_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return columns and values of the entries at these places."""
        return self.matrix.col_indices()[place_M], self.matrix.values()[place_M]


def drawn_rows(matrix: Tensor | MappedRows, node_X: Tensor, most: int) -> Near:
    """Return rows of a CSR matrix; of a row with more than `most` entries, as many are drawn with replacement.

    What is drawn is weighed up by entries / most, so that products are right in the mean.
    """
    device = node_X.device
    rows: CSRRows | MappedRows
    if isinstance(matrix, Tensor):
        rows = CSRRows(matrix)
    else:  # files are read by the processor
        rows, node_X = matrix, node_X.cpu()
    first_X, count_X = rows.spans(node_X)
    taken_X = count_X.clamp(max=most)
    row_M = torch.repeat_interleave(taken_X)
    place_M = torch.arange(len(row_M), device=node_X.device) - (taken_X.cumsum(0) - taken_X)[row_M]
    drawn_M = (torch.rand(len(row_M), device=node_X.device, dtype=torch.float64) * count_X[row_M]).long()
    place_M = first_X[row_M] + torch.where((count_X > most)[row_M], drawn_M, place_M)
    column_M, value_M = rows.entries(node_X[row_M], place_M)
    value_M = value_M * (count_X / taken_X)[row_M]
    node_Y, column_M = column_M.unique(return_inverse=True)
    shape = len(node_X), len(node_Y)
    row_M, column_M, value_M, node_Y = (part.to(device) for part in (row_M, column_M, value_M, node_Y))
    return Near(node_Y, adjacency(row_M, column_M, value_M, *shape), adjacency(column_M, row_M, value_M, *shape[::-1]))


def sampled_layers(
    matrix: Tensor | MappedRows, vectors: Callable[[Tensor], Tensor], node_X: Tensor, layers: int, most: int
) -> list[Tensor]:
    """Return estimates of x, A x, ..., A^L x at some nodes, each (X, D), from at most `most` neighbours of a node.

    Args:
        matrix: A, CSR (N, N).
        vectors: What gives rows of x for nodes that rise.
        node_X: The nodes, rising.
        layers: L.
        most: Neighbours of a node in each layer; rows that have no more count whole.
    """
    own_XD = vectors(node_X)
    if not layers:
        return [own_XD]
    near = drawn_rows(matrix, node_X, most)
    deeper = sampled_layers(matrix, vectors, near.node_Y, layers - 1, most)
    return [own_XD, *(near.times(x_YD) for x_YD in deeper)]
