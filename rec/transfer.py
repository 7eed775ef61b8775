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
    return sent(torch.tensor(values, dtype=dtype), device)


def sent(value: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device; the host does not wait, as what goes to an accelerator starts from pinned memory."""
    pinned = value.pin_memory() if host_knows(value) and pins(device) else value
    return pinned.to(device, non_blocking=True)


def pins(device: torch.device | str) -> bool:
    """Return whether only pinned memory of the host is copied to a device while the host goes on."""
    return torch.accelerator.is_available() and torch.device(device).type != "cpu"


def rows_of_host(tables: Sequence[Tensor], indices: Sequence[Tensor]) -> list[Tensor]:
    """Return rows of tables of the host, (X, ...), on the devices of their indices (X,).

    The host waits once, for all indices that it does not know.
    """
    found = []
    for table, index_X, place_X in zip(tables, indices, to_host(indices), strict=True):
        shape = len(place_X), *table.shape[1:]
        row_X = torch.empty(shape, dtype=table.dtype, pin_memory=pins(index_X.device))
        torch.index_select(table, 0, place_X, out=row_X)
        found.append(row_X.to(index_X.device, non_blocking=True))
    return found


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
