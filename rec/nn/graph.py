"""Graphs of users and items: normalised adjacency, propagation, edges drawn for an epoch.

Letters: E edges, N nodes, U users, I items with padding as item 0, D width, L layers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from rec.nn.mapped import MappedRows, quiet

Sparse = Tensor | MappedRows
SINGLE_BYTES = 4
Observe = Callable[[float], None]
OBSERVER: ContextVar[Observe | None] = ContextVar("observer of sparse products", default=None)


def adjacency(row_E: Tensor, column_E: Tensor, weight_E: Tensor, rows: int, columns: int | None = None) -> Tensor:
    """Return the sparse matrix (rows, columns or as many) in CSR with these entries; equal ones add up."""
    index = torch.stack([row_E, column_E])
    with quiet():
        return (
            torch.sparse_coo_tensor(index, weight_E, (rows, rows if columns is None else columns))
            .coalesce()
            .to_sparse_csr()
        )


def normalised(row_E: Tensor, column_E: Tensor, weight_E: Tensor, nodes: int) -> Tensor:
    """Return D^-1/2 A D^-1/2 of a symmetric graph whose edges are given in both directions; nodes alone stay 0."""
    degree_N = torch.zeros(nodes, device=weight_E.device).index_add_(0, row_E, weight_E)
    scale_N = torch.where(degree_N > 0, degree_N.clamp(min=1e-12).rsqrt(), 0.0)
    return adjacency(row_E, column_E, scale_N[row_E] * weight_E * scale_N[column_E], nodes)


def bipartite(user_E: Tensor, item_E: Tensor, num_users: int, num_items: int) -> Tensor:
    """Return the normalised graph of users (nodes 0 to U - 1) and items (node U + item), (U + I, U + I) CSR.

    Source: He et al. 2020 (LightGCN), equation 7.
    """
    other_E = item_E + num_users
    ones_E = torch.ones(len(user_E), device=user_E.device)
    row, column = torch.cat([user_E, other_E]), torch.cat([other_E, user_E])
    return normalised(row, column, torch.cat([ones_E, ones_E]), num_users + num_items)


def profiles(user_E: Tensor, item_E: Tensor, num_users: int, num_items: int) -> tuple[Tensor, Tensor]:
    """Return the matrix that takes items to their means over each user's, (U, I) CSR, and its transpose.

    Rows of users without items are empty.
    """
    weight_E = 1 / torch.bincount(user_E, minlength=num_users)[user_E]
    matrix = adjacency(user_E, item_E, weight_E, num_users, num_items)
    return matrix, adjacency(item_E, user_E, weight_E, num_items, num_users)


def pseudo_edges(
    user_E: np.ndarray,
    item_E: np.ndarray,
    similar: scipy.sparse.csr_array,
    num_users: int,
    most: int,
    users_at_once: int = 4096,
) -> tuple[np.ndarray, np.ndarray]:
    """Return users and the items that are most like the mean of theirs, none that they have: at most `most` each.

    Of equally similar items the one with the lower number comes first. A block of users is in memory at once.
    """
    items = similar.shape[0]
    count_U = np.bincount(user_E, minlength=num_users)
    weight_E = (1 / count_U[user_E]).astype(np.float32)
    owned = scipy.sparse.csr_array((weight_E, (user_E, item_E)), shape=(num_users, items))
    users, chosen = [], []
    for first in range(0, num_users, users_at_once):
        block = owned[first : first + users_at_once]
        near = (block @ similar).tocoo()
        seen = np.isin(near.row.astype(np.int64) * items + near.col, _cells(block))
        row, column, value = near.row[~seen], near.col[~seen], near.data[~seen]
        order = np.lexsort((column, -value, row))
        row, column = row[order], column[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        users.append(first + row[place < most])
        chosen.append(column[place < most])
    return np.concatenate(users), np.concatenate(chosen)


def _cells(block: scipy.sparse.csr_array) -> np.ndarray:
    row, column = block.nonzero()
    cells: np.ndarray = row.astype(np.int64) * block.shape[1] + column
    return cells


@contextmanager
def observed_products(observe: Observe) -> Iterator[None]:
    """Tell `observe` the seconds of every sparse product that starts inside, and of its gradient when that is made."""
    token = OBSERVER.set(observe)
    try:
        yield
    finally:
        OBSERVER.reset(token)


def _observed(observe: Observe | None, multiply: Callable[[], Tensor]) -> Tensor:
    if observe is None:
        return multiply()
    start_s = time.perf_counter()
    product_ND = multiply()
    observe(time.perf_counter() - start_s)
    return product_ND


class Product(torch.autograd.Function):
    """Sparse times dense; the gradient goes to the dense side alone."""

    @staticmethod
    def forward(ctx: Any, matrix: Sparse, transposed: Sparse, x_ND: Tensor) -> Tensor:
        """Return matrix @ x."""
        ctx.transposed, ctx.observe = transposed, OBSERVER.get()
        return _observed(ctx.observe, lambda: matrix @ x_ND)

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[None, None, Tensor]:
        """Return the gradient of x."""
        return None, None, _observed(ctx.observe, lambda: ctx.transposed @ grad_ND.contiguous())


def product(matrix: Sparse, x_ND: Tensor, transposed: Sparse | None = None) -> Tensor:
    """Return matrix @ x; `transposed` is needed for the gradient where the matrix is not symmetric.

    Matrices are float32, and so are the sums that a product makes, whatever `x` is.
    """
    out: Tensor = Product.apply(matrix, matrix if transposed is None else transposed, _single(x_ND))
    return out.to(x_ND.dtype)


def mean_of_layers(matrix: Sparse, x_ND: Tensor, layers: int) -> Tensor:
    """Return the mean of x, A x, ..., A^L x for a symmetric A (LightGCN, equation 4 with equal weights)."""
    layer_ND = total_ND = _single(x_ND)
    for _ in range(layers):
        layer_ND = product(matrix, layer_ND)
        total_ND = total_ND + layer_ND
    return (total_ND / (layers + 1)).to(x_ND.dtype)


def _single(x_ND: Tensor) -> Tensor:
    """Return half precision as float32."""
    return x_ND.float() if x_ND.element_size() < SINGLE_BYTES else x_ND


def drawn_edges(user_E: Tensor, item_E: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return the indices of a share of the edges, drawn without replacement with weights 1 / sqrt(d_u d_i), sorted.

    Source: Zhou and Shen 2023 (FREEDOM), equation 6. The order in which exponential clocks of these rates ring is
    that of draws without replacement (Efraimidis and Spirakis 2006).
    """
    degree_U, degree_I = torch.bincount(user_E).double(), torch.bincount(item_E).double()
    clock_E = torch.empty(len(user_E), dtype=torch.float64).exponential_(generator=generator)
    clock_E = clock_E.to(user_E.device) * (degree_U[user_E] * degree_I[item_E]).sqrt()
    return clock_E.topk(max(1, int(share * len(user_E))), largest=False).indices.sort().values


def moved(value: Any, device: torch.device) -> Any:
    """Return tensors in lists, tuples and objects with a `to` on another device; None stays None."""
    if isinstance(value, (list, tuple)):
        return type(value)(moved(part, device) for part in value)
    return value if value is None else value.to(device)
