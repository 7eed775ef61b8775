"""A branch that every rank computes alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rec.moe.layer import layers_of
from rec.seeds import derive


class Replicated(nn.Module):
    """Runs a module on inputs that are the same on every rank so that its outputs are the same too, dropout included.

    What is random in it draws from a generator of its own, seeded alike on all ranks for every step of training
    (`start`); the generator of everything else is left as it was. Each of several calls in a step draws anew. Experts
    inside are not spread over ranks.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        for _, layer in layers_of(module):
            layer.replicated = True
        self.seed, self.calls = 0, 0

    def start(self, seed: int) -> None:
        """Draw what follows from this seed."""
        self.seed, self.calls = seed, 0

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """Return what the module returns."""
        devices = {p.device for p in self.module.parameters() if p.device.type == "cuda"}
        with torch.random.fork_rng(devices=sorted(device.index for device in devices)):
            torch.manual_seed(derive(self.seed, "call", self.calls))
            self.calls += 1
            return self.module(*arguments, **named)
