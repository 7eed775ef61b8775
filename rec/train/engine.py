"""What runs a model's forward, backward and update: this process alone, or a distributed backend."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rec.batch import Batch
from rec.errors import CheckpointError
from rec.keys import TrainConfig
from rec.train.optim import make_optimiser

State = dict[str, Tensor]
"""Tensors by name: `model.NAME`, and `optimizer.NAME.SLOT` for every parameter that has been updated."""


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

    def state(self) -> State:
        """Return model and optimiser as plain tensors on the CPU; every rank calls it."""

    def load_state(self, state: State) -> None:
        """Take over model and optimiser; every rank calls it with the same state."""

    def close(self) -> None:
        """Let go of the optimiser and of every hook, so that another engine can take the module."""


class LocalEngine:
    """One process, one device, plain PyTorch."""

    rank = 0
    world_size = 1

    def __init__(self, module: nn.Module, config: TrainConfig, device: str = "cpu") -> None:
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
        return norm

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """Return `value`."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Return `value` alone."""
        return [value]

    def state(self) -> State:
        """Return model and optimiser as plain tensors on the CPU."""
        state = {f"model.{name}": value.detach().cpu().clone() for name, value in self.module.state_dict().items()}
        for name, parameter in self.module.named_parameters():
            for slot, value in self.optimizer.state.get(parameter, {}).items():
                state[f"optimizer.{name}.{slot}"] = torch.as_tensor(value).detach().cpu().clone()
        return state

    def load_state(self, state: State) -> None:
        """Take over model and optimiser."""
        load_model(self.module, state)
        for name, parameter in self.module.named_parameters():
            slots = slots_of(state, name)
            if slots and parameter.requires_grad:
                moved = {k: v.clone() if k == "step" else v.clone().to(parameter.device) for k, v in slots.items()}
                self.optimizer.state[parameter] = moved

    def close(self) -> None:
        """Let go of the optimiser."""
        del self.optimizer


def load_model(module: nn.Module, state: State) -> None:
    """Put the weights of `state` into `module`.

    Raises:
        CheckpointError: names or shapes differ.
    """
    weights = {name.removeprefix("model."): v for name, v in state.items() if name.startswith("model.")}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"checkpoint does not fit the model: {error}") from error


def slots_of(state: State, name: str) -> State:
    """Return the optimiser's slots for the parameter `name`."""
    prefix = f"optimizer.{name}."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
