"""The optimiser and the learning rate at each step."""

from __future__ import annotations

import math

import torch
from torch import nn

from rec.keys import TrainConfig


def adamw(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW over the parameters that are trained; built after a backend has placed the model."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        trained,
        lr=config.learning_rate,
        betas=(0.9, config.adam_beta2),
        weight_decay=config.weight_decay,
        fused=trained[0].device.type == "cpu",
    )


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Return the learning rate of a step from 0: linear warm-up, then constant, or falling to 0 at the end."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    left = max(total_steps - config.warmup_steps, 1)
    done = min((step - config.warmup_steps) / left, 1.0)
    if config.schedule == "linear":
        return config.learning_rate * (1 - done)
    if config.schedule == "cosine":
        return config.learning_rate * (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate
