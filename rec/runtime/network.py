"""The network between workers: each finds the interface of its own node."""

from __future__ import annotations

import inspect
import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import ray
import ray.train
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig

train_context, tell_ray = inspect.unwrap(ray.train.get_context), inspect.unwrap(ray.train.report)
"""Ray's own, without their check for the tuner, which imports it in every worker."""
INTERFACE = "GLOO_SOCKET_IFNAME"
END_S = 30.0
"""Longest wait for workers to leave their process group."""


def interface_of(address: str) -> str:
    """Return the network interface that owns an address: gloo guesses wrong where the host name is 127.0.0.1."""
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.family == socket.AF_INET and entry.address == address for entry in entries):
            return str(name)
    return "lo"


def choose_interface() -> None:
    """Have gloo use the interface by which Ray reaches this node, unless the node's own environment names one."""
    os.environ.setdefault(INTERFACE, interface_of(ray.util.get_node_ip_address()))


def join(backend: str, rank: int, size: int, address: str, port: int, timeout_s: int) -> None:
    """Connect this worker with the others at the address of the first one.

    As Ray does it, whose own functions for torch would import its tuner as well.
    """
    import torch.distributed

    choose_interface()  # names of interfaces differ between machines
    context = train_context()
    told = {
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
        "RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_RANK": context.get_local_rank(),
        "LOCAL_WORLD_SIZE": context.get_local_world_size(),
        "NODE_RANK": context.get_node_rank(),
    }
    os.environ |= {name: str(value) for name, value in told.items()}
    if "TORCH_NCCL_BLOCKING_WAIT" not in os.environ:  # a collective that takes too long ends the worker
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    torch.distributed.init_process_group(backend, rank=rank, world_size=size, timeout=timedelta(seconds=timeout_s))


def leave(size: int) -> None:
    """End what `join` began."""
    import torch.distributed

    if size > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Device:
    """What a worker has for its own inside: on a GPU, the one that Ray has given it."""

    def __enter__(self) -> None:
        import torch

        if torch.cuda.is_available():
            from ray.train.torch import get_device

            if (device := get_device()).type == "cuda":  # not where a run on CPUs meets a machine with GPUs
                torch.cuda.set_device(device)

    def __exit__(self, *_: object) -> None:
        return None


class _Backend(Backend):  # type: ignore[misc]
    """Ray's backend of torch, without torch in the process that only directs workers: 3 s of every start."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: ConnectedWorkers) -> None:
        """Connect the workers."""
        address, port = worker_group.execute_single(0, get_address_and_port)
        size = len(worker_group)
        joining = [
            worker_group.execute_single_async(
                rank, join, backend_config.backend, rank, size, address, port, backend_config.timeout_s
            )
            for rank in range(size)
        ]
        ray.get(joining)

    def on_shutdown(self, worker_group: Any, backend_config: ConnectedWorkers) -> None:
        """Let the workers go; they are ended anyway where that takes too long."""
        ray.wait(worker_group.execute_async(leave, len(worker_group)), num_returns=len(worker_group), timeout=END_S)


@dataclass
class ConnectedWorkers(BackendConfig):  # type: ignore[misc]
    """How Ray Train connects workers."""

    backend: str = "gloo"
    """Or nccl."""
    timeout_s: int = 1800
    """Longest wait of a collective operation."""

    @property
    def backend_cls(self) -> type[_Backend]:
        """What sets workers up."""
        return _Backend

    @property
    def train_func_context(self) -> type[Device]:
        """What training runs inside."""
        return Device
