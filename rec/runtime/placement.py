"""Which part of a model a rank holds, and where each part stands in the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.distributed
from torch import Tensor, nn

from rec.nn.base import is_referred_to, refuse_another_base
from rec.train.engine import refuse_others, tensors_of
from rec.train.shards import Tensors
from rec.train.tables import load_tables, shapes_of_tables

SLICED = 1 << 16
"""Numbers from which on ranks that hold the same tensor each save a slice of it."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """What this rank's optimiser holds of a parameter: master[start:start + size] is whole[at:at + size], both flat."""

    master: Tensor
    """What the optimiser updates: a flat partition of many parameters, a float32 copy, or the parameter itself."""
    start: int
    at: int
    size: int
    is_parameter: bool

    def of(self, held: Tensor) -> Tensor:
        """Return this fragment's numbers in what the optimiser holds, flat."""
        return held.detach().view(-1)[self.start : self.start + self.size]

    def put(self, target: Tensor, state: Tensors, name: str) -> None:
        """Write this fragment's part of a tensor where it stands in `target`."""
        part = state.part(name, self.at, self.size)
        target.view(-1)[self.start : self.start + self.size] = part.to(target.device, target.dtype)

    def share(self, number: int, copy: int, copies: int) -> Fragment:
        """Return the share of one of several ranks that hold the same: a slice, or all or nothing of what is small."""
        if self.size < SLICED:
            first, end = (0, self.size) if number % copies == copy else (0, 0)
        else:
            first, end = (copy * self.size // copies, (copy + 1) * self.size // copies)
        return replace(self, start=self.start + first, at=self.at + first, size=end - first)


@dataclass(frozen=True, slots=True)
class ParameterPlace:
    """Where a rank's parameter stands in the model's whole one."""

    name: str
    at: int
    """Its first element, counted flat."""


@dataclass(slots=True)
class WholeParameter:
    """A parameter of the model as one device would hold it."""

    shape: torch.Size
    spread: bool = False
    """Whether ranks hold different parts of it: experts."""
    trained: bool = False


class Placement:
    """Which part of the model this rank holds."""

    def __init__(self, module: nn.Module, expert_parallel: int) -> None:
        self.expert_parallel = expert_parallel
        self.copy = 0
        """Which copy of the experts this rank has a part of."""
        self.whole = {name: WholeParameter(p.shape) for name, p in module.named_parameters() if not is_referred_to(p)}
        self.names = frozenset(module.state_dict())
        self.tables = shapes_of_tables(module)
        """Shapes of sharded tables, whose rows are no parameters (`rec.nn.sharded`)."""
        self.buffers = [name for name in tensors_of(module) if name not in self.whole and name not in self.tables]
        self.place: dict[nn.Parameter, ParameterPlace] = {}
        self.expert_group = ""
        """DeepSpeed's name of the ranks that share experts, empty where experts are as other parameters."""

    def note_trained(self, module: nn.Module, sum_over_ranks: Callable[[Tensor], Tensor]) -> None:
        """Learn which parameters are trained, those of other ranks included."""
        own = {
            self.place.get(p, ParameterPlace(name, 0)).name for name, p in module.named_parameters() if p.requires_grad
        }
        trained = sum_over_ranks(torch.tensor([float(name in own) for name in self.whole]))
        for whole, count in zip(self.whole.values(), trained.tolist(), strict=True):
            whole.trained = count > 0

    def load(self, module: nn.Module, state: Tensors) -> None:
        """Put this rank's part of the weights of `state` into `module`.

        Raises:
            CheckpointError: names or shapes differ.
        """
        buffers = module.state_dict()
        expected = {name: tuple(whole.shape) for name, whole in self.whole.items()}
        expected |= {name: tuple(buffers[name].shape) for name in self.buffers}
        refuse_others(expected | self.tables, state, self.names)
        refuse_another_base(module, state)
        load_tables(module, state)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if is_referred_to(parameter):
                    continue
                place = self.place.get(parameter, ParameterPlace(name, 0))
                part = state.part(f"model.{place.name}", place.at, parameter.numel())
                parameter.copy_(part.view(parameter.shape))
            for name in self.buffers:
                buffers[name].copy_(state[f"model.{name}"])
