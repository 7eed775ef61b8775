"""Modules made without their weights, where weights follow: from a checkpoint, or drawn where they will live.

A parameter without memory is on torch's device "meta"; buffers and tables are made as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

M = TypeVar("M", bound=nn.Module)
UNDRAWN = "undrawn"
"""Attribute of a module whose own `draw` gives it its first weights once they have memory."""
_EMPTY: ContextVar[type[nn.Module] | None] = ContextVar("empty", default=None)
"""Kind of modules whose parameters get no memory."""


def made_empty(make: Callable[[], M]) -> M:
    """Return a module whose parameters have no memory, for weights that are read; `fill` or loading gives it to them.

    A module whose making looks at its weights is made as ever.
    """
    return _made(make, nn.Module) or make()


def made_undrawn(make: Callable[[], M], kind: type[nn.Module]) -> M:
    """Return a module in which parts of a kind, which can `draw` their weights, have none before `fill`.

    A module whose making looks at those weights, or changes them by itself, is made as ever.
    """
    return _made(make, kind) or make()


def _made(make: Callable[[], M], kind: type[nn.Module]) -> M | None:
    """Return a module in which parts of a kind have no weights, None where its making would have needed them."""
    whole, watch = kind is nn.Module, _Watch()
    token, handle = _EMPTY.set(kind), register_module_parameter_registration_hook(_emptied)  # type: ignore[arg-type]
    try:
        with nullcontext() if whole else watch:
            module = make()
    except (RuntimeError, NotImplementedError):  # as torch says that there are no values
        return None
    finally:
        handle.remove()
        _EMPTY.reset(token)
    others = (part for part in module.modules() if not isinstance(part, kind))
    passed_on = any(parameter.is_meta for part in others for parameter in part.parameters(recurse=False))
    lost = watch.changed or passed_on or any(buffer.is_meta for buffer in module.buffers())
    return None if lost else module


@contextmanager
def with_weights() -> Iterator[None]:
    """Make modules with their weights, whatever is asked for outside."""
    token = _EMPTY.set(None)
    try:
        yield
    finally:
        _EMPTY.reset(token)


@torch.no_grad()
def fill(module: nn.Module, device: torch.device | str = "cpu") -> None:
    """Give parameters memory that have none, and parts that can draw their weights these."""
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            if parameter.is_meta:
                filled = nn.Parameter(torch.empty_like(parameter, device=device), requires_grad=parameter.requires_grad)
                # Who knows a parameter goes on knowing it; `torch.utils.swap_tensors` refuses recurrent networks'.
                torch._C._swap_tensor_impl(parameter, filled)
        if vars(part).pop(UNDRAWN, False):
            part.draw()  # type: ignore[operator]


def _emptied(module: nn.Module, _: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
    """Return a parameter without memory, None where it is to stay as it is."""
    kind = _EMPTY.get()
    if kind is None or parameter is None or parameter.is_meta or not isinstance(module, kind):
        return None
    if kind is not nn.Module:
        setattr(module, UNDRAWN, True)
    return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)


class _Watch(TorchDispatchMode):
    """Notes whether anything without memory is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler, from which it would otherwise keep what is below: 2 s."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        schema = getattr(func, "_schema", None)
        if (
            schema is not None
            and schema.is_mutable
            and any(isinstance(value, Tensor) and value.is_meta for value in args)
        ):
            self.changed = True
        return func(*args, **(kwargs or {}))
