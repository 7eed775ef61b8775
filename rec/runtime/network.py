"""The network between workers: each finds the interface of its own node."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

INTERFACE = "GLOO_SOCKET_IFNAME"


def interface_of(address: str) -> str:
    """Return the network interface that owns an address: gloo guesses wrong where the host name is 127.0.0.1."""
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.family == socket.AF_INET and entry.address == address for entry in entries):
            return str(name)
    return "lo"


def choose_interface() -> None:
    """Have gloo use the interface by which Ray reaches this node, unless the node's own environment names one."""
    os.environ.setdefault(INTERFACE, interface_of(ray.util.get_node_ip_address()))


class _Backend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Choose the interface in every worker, then connect them: names of interfaces differ between machines."""
        worker_group.execute(choose_interface)
        super().on_start(worker_group, backend_config)


@dataclass
class ConnectedWorkers(TorchConfig):  # type: ignore[misc]
    """How Ray Train connects workers."""

    @property
    def backend_cls(self) -> type[_Backend]:
        """What sets workers up."""
        return _Backend
