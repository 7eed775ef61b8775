"""What has to be equal on all ranks beside parameters: draws of replicated branches, and running statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rec.moe.layer import layers_of
from rec.nn.replicated import Replicated
from rec.seeds import derive
from rec.train.engine import Engine


def replicated_of(module: nn.Module) -> list[tuple[str, Replicated]]:
    """Return the branches inside a module that every rank computes alike, with their names."""
    return [(name, part) for name, part in module.named_modules() if isinstance(part, Replicated)]


def start_step(branches: list[tuple[str, Replicated]], seed: int, phase: int, total_step: int) -> None:
    """Seed every replicated branch for a step, alike on all ranks."""
    for name, branch in branches:
        branch.start(derive(seed, "replicated", phase, total_step, name))


class Running:
    """Running means and variances of batch normalisation in a step of several microbatches.

    Each microbatch moves them from where they were before the step, and they go to the mean: as over ranks, and as one
    batch moves them where microbatches are alike.
    """

    def __init__(self, module: nn.Module) -> None:
        parts = [part for part in module.modules() if isinstance(part, _BatchNorm)]
        self.values = [value for part in parts for value in part.buffers(recurse=False)]
        self.before = [value.clone() for value in self.values]
        self.moved: list[list[Tensor]] = []

    @torch.no_grad()
    def put_back(self) -> None:
        """Set them to what they were."""
        for value, was in zip(self.values, self.before, strict=True):
            value.copy_(was)

    def take(self, counts: bool) -> None:
        """Note where a microbatch has moved them, unless it counts nowhere, and put them back."""
        if counts and self.values:
            self.moved.append([value.clone() for value in self.values])
        self.put_back()

    @torch.no_grad()
    def settle(self) -> None:
        """Set them to the mean of what was noted."""
        for value, *moved in zip(self.values, *self.moved, strict=True):
            if moved:
                value.copy_(torch.stack(moved).double().mean(0))


@torch.no_grad()
def average_running_statistics(engine: Engine) -> None:
    """Set the running mean and variance of every batch normalisation to the mean over ranks.

    Those inside experts are left alone: ranks hold different experts.
    """
    if engine.world_size == 1:
        return
    inside = tuple(f"{name}.experts." if name else "experts." for name, _ in layers_of(engine.module))
    values = [
        value
        for name, part in engine.module.named_modules()
        if isinstance(part, _BatchNorm) and not f"{name}.".startswith(inside)
        for value in (part.running_mean, part.running_var)
        if value is not None
    ]
    if not values:
        return
    flat = torch.cat([value.detach().double().flatten().cpu() for value in values])
    mean = engine.sum_over_ranks(flat) / engine.world_size
    for value, part in zip(values, mean.split([value.numel() for value in values]), strict=True):
        value.copy_(part.view(value.shape))
