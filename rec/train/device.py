"""Where this process computes."""

from __future__ import annotations

import torch

from rec.errors import ConfigError
from rec.train.config import ParallelConfig


def device_of(parallel: ParallelConfig) -> str:
    """Return the device of a run in this process, as torch names it.

    Raises:
        ConfigError: a GPU is wanted and torch finds none.
    """
    if not parallel.gpu:
        return "cpu"
    if not torch.cuda.is_available():
        raise ConfigError("parallel.gpu: this machine has no GPU that torch can use; set parallel.gpu=false")
    return "cuda"
