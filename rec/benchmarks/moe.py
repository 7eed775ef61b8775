"""The mixture layer beside a dense feed-forward that does just the routed rows' work, and beside another layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rec.benchmarks.row import Row, timed
from rec.benchmarks.timing import in_turns
from rec.moe.dispatch import carry, order_by_expert
from rec.moe.experts import FeedForward, FeedForwardExperts
from rec.moe.layer import Carry
from rec.moe.routing import Routing, keep_top_k
from rec.train.memory import keep_freed_memory

EXPERTS, ROWS, WIDTHS, CHOICES = (8, 16, 64), (2048, 8192, 16384), (64, 128, 256), (1, 2, 4)
HIDDEN = 4
"""Hidden width of an expert as a multiple of the width."""
REPEATS, BUDGET_S = 9, 3.0
DENSE_GOAL, DENSE_GOAL_MANY = 1.25, 1.6
OTHER_GOAL, OTHER_GOAL_MANY = 1.0, 0.5
Other = Callable[[FeedForwardExperts], tuple[nn.Module, Carry]]
"""From our experts to another layer's, with its dispatch."""


def measure(other: Other | None = None, other_name: str = "", small: bool = False) -> list[Row]:
    """Return times of forward and backward over the grid, against a dense feed-forward and against another layer."""
    torch.set_num_threads(2)
    keep_freed_memory()
    rows: list[Row] = []
    widths, sizes = (WIDTHS[:1], ROWS[:1]) if small else (WIDTHS, ROWS)
    for dtype, experts, count, width, k in itertools.product(
        (torch.float32, torch.bfloat16), EXPERTS, sizes, widths, CHOICES
    ):
        name = f"{str(dtype).removeprefix('torch.')} E {experts} rows {count} width {width} k {k}"
        rows += _point(name, dtype, experts, count, width, k, other, other_name)
    return rows


def _point(
    name: str, dtype: torch.dtype, experts: int, count: int, width: int, k: int, other: Other | None, other_name: str
) -> list[Row]:
    torch.manual_seed(0)
    many = experts > 16
    ours = FeedForwardExperts(width, HIDDEN * width, experts).to(dtype)
    dense = FeedForward(width, HIDDEN * width).to(dtype)
    x_ND, grad_ND = (torch.randn(count, width).to(dtype) for _ in range(2))
    routing = keep_top_k(torch.randn(count, experts).softmax(-1), k)
    x_AD, grad_AD = (value.repeat(k, 1) for value in (x_ND, grad_ND))
    actions = [
        step(x_ND, grad_ND, routing, ours, carry),
        lambda: backward(dense(x_AD.requires_grad_()), [x_AD, *dense.parameters()], grad_AD),
    ]
    if other is not None:
        theirs, their_carry = other(ours)
        actions.append(step(x_ND, grad_ND, routing, theirs, their_carry))
    times = in_turns(actions, REPEATS, BUDGET_S)
    goal = DENSE_GOAL_MANY if many else DENSE_GOAL
    rows = [timed(f"{name}, limit: dense", times[0], times[1], goal, physical=True)]
    if other is not None:
        memory = [peak_bytes(actions[0]) / 2**20, peak_bytes(actions[2]) / 2**20]
        goal = OTHER_GOAL_MANY if many else OTHER_GOAL
        rows.append(timed(f"{name}, limit: {other_name}", times[0], times[2], goal))
        rows.append(Row(f"{name}, peak memory, limit: {other_name}", memory[0], "MiB", memory[1]))
    return rows


def step(x_ND: Tensor, grad_ND: Tensor, routing: Routing, experts: nn.Module, dispatch: Carry) -> Callable[[], None]:
    """Return forward and backward of a layer whose routing is decided: ordering, dispatch, experts, combination."""
    x_ND = x_ND.detach().clone().requires_grad_()
    weight_NK = routing.weight_NK.clone().requires_grad_()
    members = list(experts.parameters())

    def action() -> None:
        order = order_by_expert(routing, routing.probability_NE.shape[1])
        y_ND = dispatch(x_ND, weight_NK, order, experts)  # type: ignore[arg-type]
        backward(y_ND, [x_ND, weight_NK, *members], grad_ND)

    return action


def backward(output: Tensor, inputs: Sequence[Tensor], grad: Tensor) -> None:
    """Compute the gradients of all inputs."""
    torch.autograd.grad(output, inputs, grad.to(output.dtype))


class PeakTensors(TorchDispatchMode):
    """Follows the storages that operations make, and the most bytes alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: set[int] = set()
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        """Run the operation and note what it made."""
        result = func(*args, **(kwargs or {}))
        given = {value.untyped_storage().data_ptr() for value in tree_leaves((args, kwargs)) if _has_storage(value)}
        for value in tree_leaves(result):
            if _has_storage(value):
                storage = value.untyped_storage()
                key = storage.data_ptr()
                if key and key not in self.alive and key not in given:
                    self.alive.add(key)
                    self.bytes += storage.nbytes()
                    self.peak = max(self.peak, self.bytes)
                    finalize(storage, self._freed, key, storage.nbytes())
        return result

    def _freed(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.bytes -= size


def _has_storage(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided  # what sparse ones are made of is seen alone


def peak_bytes(action: Callable[[], None]) -> int:
    """Return the most bytes of tensors that an action holds at once."""
    with PeakTensors() as mode:
        action()
    return mode.peak
