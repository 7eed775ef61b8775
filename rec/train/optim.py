"""The optimiser and the learning rate at each step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rec.train.config import TrainConfig


def eager(kind: type[torch.optim.Adam]) -> type[torch.optim.Adam]:
    """Return a kind of optimiser without what torch wraps around its methods for its compiler, which is not used here.

    The wrappers import the compiler at their first call: 2.3 s of processor time in every process that trains.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {"__module__": __name__, "step": step, **plain})


KINDS = {"adam": eager(torch.optim.Adam), "adamw": eager(torch.optim.AdamW)}


def make_optimiser(groups: Sequence[Mapping[str, Any]], config: TrainConfig) -> torch.optim.Adam:
    """Return Adam over groups of parameters; built after a backend has placed the model.

    With `optimiser = "adam"` the weight decay is a part of the gradient, as in the first papers; with "adamw" it is
    taken off the weights (Loshchilov and Hutter 2019).
    """
    device = groups[0]["params"][0].device
    made = KINDS[config.optimiser](
        [dict(group) for group in groups],
        lr=config.learning_rate,
        betas=(0.9, config.adam_beta2),
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    if device.type == "cuda":
        made.register_step_pre_hook(steps_beside_parameters)
    return made


def steps_beside_parameters(optimiser: torch.optim.Optimizer, *_: Any) -> None:
    """Bring counts of steps, which come from checkpoints on the CPU, to where a fused optimiser wants them."""
    for parameter, slots in optimiser.state.items():
        if "step" in slots and slots["step"].device != parameter.device:
            slots["step"] = slots["step"].to(parameter.device, non_blocking=True)


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Return the rate of a phase's step, counted from 0: linear warm-up, then constant, or falling to 0 at the end."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    left = max(total_steps - config.warmup_steps, 1)
    done = min((step - config.warmup_steps) / left, 1.0)
    if config.schedule == "linear":
        return config.learning_rate * (1 - done)
    if config.schedule == "cosine":
        return config.learning_rate * (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate
