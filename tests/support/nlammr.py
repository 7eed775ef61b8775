"""A small NLA-MMR for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec.systems.nlammr import NLAMMR
from rec.systems.nlammr.config import NLAMMRConfig

SMALL: dict[str, Any] = {"width": 8, "graph_width": 6, "graph_layers": 3, "dropout": 0.0, "graph_dropout": 0.0}
ROWS = 12


def built(changes: dict[str, Any] | None = None, tables: dict[str, np.ndarray] | None = None) -> tuple[Any, Any, Any]:
    """Return a small system, its rows and a model in evaluation; `tables` take the place of the sample's."""
    rows, sampled = NLAMMR.sample(ROWS, np.random.default_rng(1))
    system = NLAMMR(NLAMMRConfig.model_validate(SMALL | (changes or {})), sampled | (tables or {}), seed=3)
    torch.manual_seed(0)
    module = system.model()
    with torch.no_grad():  # what starts at zero, or equal, would hide mistakes
        for name, parameter in module.named_parameters():
            if "norm" in name or "eps" in name or "gate" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer))
    return system, dict(rows), module.eval()


def scores(system: Any, module: Any, rows: Any) -> Tensor:
    """Return the scores of rows, without gradient."""
    with torch.no_grad():
        found: Tensor = module(system.collate(rows)).score_BV
    return found


def loss_of(changes: dict[str, Any], *, train: bool = True) -> dict[str, float]:
    """Return the terms of a small system's loss."""
    system, rows, module = built(changes)
    module.train(train)
    torch.manual_seed(7)
    return {name: float(term.sum.detach()) for name, term in system.loss(module, system.collate(rows)).items()}
