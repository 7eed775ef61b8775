"""Which part of a model a rank holds, and where each part stands in the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn

from rec.errors import CheckpointError
from rec.train.engine import State


@dataclass(frozen=True, slots=True)
class Fragment:
    """What this rank's optimiser holds of a parameter: master[start:start + size] is whole[at:at + size], both flat."""

    master: Tensor
    """What the optimiser updates: a flat partition of many parameters, a float32 copy, or the parameter itself."""
    start: int
    at: int
    size: int
    is_parameter: bool

    def put(self, target: Tensor, whole: Tensor) -> None:
        """Write this fragment's part of `whole` where it stands in `target`."""
        part = whole.flatten()[self.at : self.at + self.size]
        target.view(-1)[self.start : self.start + self.size] = part.to(target.device, target.dtype)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rank's parameter stands in the model's whole one."""

    name: str
    at: int
    """Its first element, counted flat."""


@dataclass(slots=True)
class Whole:
    """A parameter of the model as one device would hold it."""

    shape: torch.Size
    spread: bool = False
    """Whether ranks hold different parts of it: experts."""
    trained: bool = False


class Placement:
    """Which part of the model this rank holds."""

    def __init__(self, module: nn.Module, expert_parallel: int) -> None:
        self.expert_parallel = expert_parallel
        self.whole = {name: Whole(p.shape) for name, p in module.named_parameters()}
        self.buffers = [name for name in module.state_dict() if name not in self.whole]
        self.place: dict[nn.Parameter, Place] = {}
        self.expert_group = ""
        """DeepSpeed's name of the ranks that share experts, empty where experts are as other parameters."""
        self.is_first_copy = torch.distributed.get_rank() < expert_parallel

    def note_trained(self, module: nn.Module, sum_over_ranks: Callable[[Tensor], Tensor]) -> None:
        """Learn which parameters are trained, those of other ranks included."""
        own = {self.place.get(p, Place(name, 0)).name for name, p in module.named_parameters() if p.requires_grad}
        trained = sum_over_ranks(torch.tensor([float(name in own) for name in self.whole]))
        for whole, count in zip(self.whole.values(), trained.tolist(), strict=True):
            whole.trained = count > 0

    def load(self, module: nn.Module, state: State) -> None:
        """Put this rank's part of the weights of `state` into `module`.

        Raises:
            CheckpointError: names or shapes differ.
        """
        expected = {f"model.{name}": tuple(whole.shape) for name, whole in self.whole.items()}
        expected |= {f"model.{name}": tuple(module.state_dict()[name].shape) for name in self.buffers}
        found = {name: tuple(value.shape) for name, value in state.items() if name.startswith("model.")}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise CheckpointError(
                    f"checkpoint does not fit the model: {name.removeprefix('model.')} has shape {found.get(name)}, "
                    f"expected {expected.get(name)}"
                )
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                place = self.place.get(parameter, Place(name, 0))
                flat = state[f"model.{place.name}"].flatten()[place.at : place.at + parameter.numel()]
                parameter.copy_(flat.view(parameter.shape))
            for name in self.buffers:
                module.state_dict()[name].copy_(state[f"model.{name}"])
