"""The bare products of a training step: every product and gather that it makes, recorded and made again alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

PRODUCTS = frozenset(
    {"mm", "addmm", "addmm_", "bmm", "baddbmm", "mv", "addmv", "_sparse_mm", "_sparse_addmm", "convolution"}
)
GATHERS = frozenset(
    {"embedding", "embedding_dense_backward", "_embedding_bag", "index", "index_select", "gather", "index_put"}
    | {"index_put_", "_index_put_impl_", "index_add", "index_add_", "scatter_add", "scatter_add_"}
    | {"_embedding_bag_forward_only"}
)
"""Names of operations of torch: what moves rows by index, with what its gradient is."""


@dataclass(slots=True)
class Recorded(TorchDispatchMode):
    """Records the products and gathers that are made while it is entered, gradients' ones among them."""

    calls: list[tuple[Any, tuple[Any, ...], Mapping[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Keep the call and make it."""
        if func.overloadpacket.__name__ in PRODUCTS | GATHERS:
            self.calls.append((func, *tree_map(_held, (args, kwargs or {}))))
        return func(*args, **(kwargs or {}))

    def names(self) -> list[str]:
        """Return the names of what was recorded, in order."""
        return [func.overloadpacket.__name__ for func, _, _ in self.calls]


def recorded(step: Callable[[], Any]) -> Recorded:
    """Return the products and gathers of one call of `step`."""
    made = Recorded()
    with made:
        step()
    return made


def bare(made: Recorded) -> Callable[[], None]:
    """Return an action that makes what was recorded again, on numbers of the same shapes, strides and types."""

    @torch.no_grad()
    def action() -> None:
        for func, args, kwargs in made.calls:
            func(*args, **kwargs)

    return action


def _held(value: Any) -> Any:
    """Return an argument that later steps do not change: a tensor is copied as it lies in memory."""
    return value.detach().clone(memory_format=torch.preserve_format) if isinstance(value, Tensor) else value
