"""Between host and device: what the host knows of a tensor, and how its values get there at the cost of one wait."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def host_knows(value: Tensor) -> bool:
    """Return whether the host reads a tensor's values without waiting for a device."""
    return value.device.type == "cpu"


def to_device(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers of the host on a device, for which it does not wait."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)


def to_host(values: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors on the CPU, without gradient; the host waits once for all of them."""
    found = [value.detach().to("cpu", non_blocking=True) for value in values]
    wait(values, found)
    return found


def wait(values: Sequence[Tensor], copies: Sequence[Tensor]) -> None:
    """Wait until copies of these tensors to the host are there."""
    for device in {value.device for value in values}:
        if device.type != "cpu":
            torch.accelerator.current_stream(device).synchronize()
