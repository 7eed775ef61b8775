"""Functions run on several processes with gloo between them: started once, used by all tests, always cleaned up."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PRELOAD = ["torch", "torch.distributed", "deepspeed", "rec.runtime.deepspeed"]


class Ranks:
    """A pool of processes, one per rank; `run` raises what a rank raised, and ends all where one hangs."""

    def __init__(self) -> None:
        # Every process is forked from one that has imported what is slow to import.
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOAD)
        self.members: list[tuple[Any, Connection]] = []
        self.folder = tempfile.TemporaryDirectory(prefix="rec-ranks-")
        self.calls = 0

    def run(self, world: int, function: Callable[..., Any], *arguments: Any, timeout_s: float = 120.0) -> list[Any]:
        """Return function(rank, world, *arguments) of every rank."""
        while len(self.members) < world:
            ours, theirs = self.context.Pipe()
            process = self.context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self.members.append((process, ours))
        self.calls += 1
        meeting = str(Path(self.folder.name) / f"meeting-{self.calls}")
        for rank, (_, pipe) in enumerate(self.members[:world]):
            pipe.send((rank, world, meeting, function, arguments))
        deadline_s = time.monotonic() + timeout_s
        results: list[Any] = []
        for rank, (process, pipe) in enumerate(self.members[:world]):
            try:
                if not pipe.poll(max(0.1, deadline_s - time.monotonic())):
                    raise TimeoutError(f"rank {rank} of {world} gave no answer within {timeout_s:.0f} s")
                ok, value = pipe.recv()
            except (EOFError, ConnectionResetError):
                self.close()
                raise RuntimeError(f"rank {rank} of {world} died with exit code {process.exitcode}") from None
            except TimeoutError:
                self.close()
                raise
            if not ok:
                self.close()
                raise RuntimeError(f"rank {rank} of {world}:\n{value}")
            results.append(value)
        return results

    def close(self) -> None:
        """End all processes."""
        for process, pipe in self.members:
            process.kill()
            process.join(timeout=10)
            with suppress(OSError):
                pipe.close()
        self.members = []


def _serve(pipe: Connection) -> None:
    os.environ.update(DS_ACCELERATOR="cpu", GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")
    import torch
    import torch.distributed

    from rec.runtime import deepspeed

    torch.set_num_threads(1)
    with suppress(EOFError):
        while True:
            rank, world, meeting, function, arguments = pipe.recv()
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
            try:
                torch.manual_seed(0)
                torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=world)
                answer = True, function(rank, world, *arguments)
                torch.distributed.barrier()  # gloo aborts a process whose peer leaves in the middle of an operation
                deepspeed.close()
                if torch.distributed.is_initialized():
                    torch.distributed.destroy_process_group()
            except BaseException:
                answer = False, traceback.format_exc()
            pipe.send(answer)
