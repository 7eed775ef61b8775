"""What is of each microbatch, not of the whole step, where a step is cut into several."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rec.moe.layer import layers_of
from rec.systems.api import System
from rec.train.phases import Stretch
from rec.train.replicas import replicated_of


def cut_in_words(system: System[Any, Any], stretch: Stretch, module: nn.Module) -> str:
    """Return what differs in a phase from steps of one batch each; empty where nothing does, or steps are not cut."""
    config = stretch.config
    if config.accumulate < 2 and not config.tokens:
        return ""
    terms = [term for term in system.within_batch() if any(fnmatch(term, glob) for glob in stretch.phase.terms)]
    limited = [name for name, layer in layers_of(module) if layer.capacity_factor and not layer.replicated]
    alike = tuple(f"{name}." for name, _ in replicated_of(module))
    normal = [
        name
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm)
        and not name.startswith(alike)
        and any(p.requires_grad for p in part.parameters())
    ]
    parts = []
    if terms:
        parts.append(f"{_listed(terms)} compare{'s' * (len(terms) == 1)} rows of one microbatch with each other")
    if limited:
        parts.append(f"what exceeds an expert's capacity is dropped in each microbatch ({_listed(limited)})")
    if normal:
        parts.append(f"batch normalisation is over each microbatch ({_listed(normal)})")
    key = stretch.key("tokens" if config.tokens else "accumulate")
    return f"{key} cuts steps into microbatches: {'; '.join(parts)}; all else is of the whole step" if parts else ""


def _listed(names: list[str]) -> str:
    """Return names as a list in words, many of them by the first few."""
    shown, more = names[:3], len(names) - 3
    return " and ".join([", ".join(shown), f"{more} more"] if more > 0 else [", ".join(shown)])
