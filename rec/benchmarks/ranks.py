"""Processes of this machine that measure together, as the ranks of one run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed


@contextmanager
def as_rank(rank: int, world: int, meeting: str) -> Iterator[None]:
    """Be one of several ranks, with one thread, while inside; `meeting` is a file of their own where they meet."""
    os.environ.update(DS_ACCELERATOR="cpu", RANK=str(rank), LOCAL_RANK=str(rank))
    os.environ.update(WORLD_SIZE=str(world), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=world)
    yield
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
