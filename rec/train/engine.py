"""What runs a model's forward, backward and update: this process alone, or a distributed backend."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.errors import CheckpointError
from rec.nn.base import is_referred_to, refuse_another_base
from rec.nn.making import fill
from rec.nn.sharded import update_tables
from rec.train.config import TrainConfig
from rec.train.optim import make_optimiser
from rec.train.shards import TensorPiece, Tensors
from rec.train.tables import load_sums, pieces_of_tables


class Engine(Protocol):
    """What a backend gives the loop."""

    module: nn.Module
    device: torch.device
    rank: int
    world_size: int

    def __call__(self, batch: Batch) -> Any:
        """Return the model's output."""

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        """Add the gradient of `loss`; gradients are averaged over ranks. An update follows the last one alone."""

    def step(self, rate: float) -> Tensor:
        """Clip, update at this learning rate, clear the gradients; return the global gradient norm before clipping, ().

        Where it lies on a device the host has not waited for it.
        """

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """Return the elementwise sum over ranks."""

    def gather(self, value: Any) -> list[Any]:
        """Return the Python object of every rank, in the order of ranks, to all."""

    def pieces(self) -> list[TensorPiece]:
        """Return what this rank owns of model and optimiser, which all ranks together own once; every rank calls it.

        Names are `model.NAME`, and `optimizer.NAME.SLOT` for every parameter that has been updated.
        """

    def load_state(self, state: Tensors) -> None:
        """Take over what this rank needs of model and optimiser; every rank calls it."""

    def close(self) -> None:
        """Let go of the optimiser and of every hook, so that another engine can take the module."""


class LocalEngine:
    """One process, one device, plain PyTorch."""

    rank = 0
    world_size = 1

    def __init__(self, module: nn.Module, config: TrainConfig, device: str = "cpu") -> None:
        fill(module, device)
        self.module, self.device = module.to(device), torch.device(device)
        self.clip_norm = config.clip_norm or float("inf")
        self.optimizer = make_optimiser([{"params": [p for p in module.parameters() if p.requires_grad]}], config)

    def __call__(self, batch: Batch) -> Any:
        """Return the model's output."""
        return self.module(batch)

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        """Add the gradient of `loss`."""
        loss.backward()

    def step(self, rate: float) -> Tensor:
        """Clip, update, clear the gradients; return the gradient norm before clipping, ()."""
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        total = self.sum_over_ranks
        tables = update_tables(self.module, rate=rate, world_size=1, clip_norm=self.clip_norm, total=total)
        return torch.hypot(norm, norm.new_tensor(tables)) if tables else norm

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """Return `value`."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Return `value` alone."""
        return [value]

    def pieces(self) -> list[TensorPiece]:
        """Return model and optimiser."""
        found = [TensorPiece.whole(f"model.{name}", value) for name, value in tensors_of(self.module).items()]
        for name, parameter in self.module.named_parameters():
            for slot, value in self.optimizer.state.get(parameter, {}).items():
                found.append(TensorPiece.whole(f"optimizer.{name}.{slot}", torch.as_tensor(value)))
        return found + pieces_of_tables(self.module, weights=False)

    def load_state(self, state: Tensors) -> None:
        """Take over model and optimiser."""
        load_model(self.module, state)
        load_sums(self.module, state)
        slots = slots_of(state)
        for name, parameter in self.module.named_parameters():
            if name in slots and parameter.requires_grad:
                values = {slot: state[f"optimizer.{name}.{slot}"] for slot in slots[name]}
                moved = {slot: v if slot == "step" else v.to(parameter.device) for slot, v in values.items()}
                self.optimizer.state[parameter] = moved

    def close(self) -> None:
        """Let go of the optimiser."""
        del self.optimizer


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers that are saved, by name; one that has several names, by its first."""
    found = {name: value for name, value in module.state_dict(keep_vars=True).items() if not is_referred_to(value)}
    names = {id(value): name for name, value in reversed(found.items())}
    return {name: value for name, value in found.items() if names[id(value)] == name}


@torch.no_grad()
def load_model(module: nn.Module, state: Tensors) -> None:
    """Put the weights of `state` into `module`.

    Raises:
        CheckpointError: names or shapes differ.
    """
    fill(module)
    own = tensors_of(module)
    refuse_others({name: tuple(value.shape) for name, value in own.items()}, state, module.state_dict().keys())
    refuse_another_base(module, state)
    for name, value in own.items():
        value.copy_(state[f"model.{name}"])


def refuse_others(expected: Mapping[str, tuple[int, ...]], state: Tensors, known: Collection[str]) -> None:
    """Check that a state has the weights of a model; further names that are `known` are passed over.

    Raises:
        CheckpointError: names or shapes differ.
    """
    there = [name.removeprefix("model.") for name in state if name.startswith("model.")]
    found = {name: state.shape(f"model.{name}") for name in there if name in expected or name not in known}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"checkpoint does not fit the model: {name} has shape {found.get(name)}, expected {expected.get(name)}"
            )


def slots_of(state: Tensors) -> dict[str, list[str]]:
    """Return which slots of the optimiser a state holds, by parameter."""
    found: dict[str, list[str]] = {}
    for key in state:
        if key.startswith("optimizer."):
            name, _, slot = key.removeprefix("optimizer.").rpartition(".")
            found.setdefault(name, []).append(slot)
    return found
