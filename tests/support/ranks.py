"""Functions run on several processes with gloo between them: fresh ones each time, in a fraction of a second."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

PRELOAD = ["tests.support.preload"]


class Ranks:
    """Forks one process per rank from one that has imported what is slow to import.

    Fresh processes, because process groups that an engine has made outlive it, and each has threads that poll.
    """

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOAD)

    def run(self, world: int, function: Callable[..., Any], *arguments: Any, timeout_s: float = 120.0) -> list[Any]:
        """Return function(rank, world, *arguments) of every rank.

        Raises:
            RuntimeError: a rank raised, or died.
            TimeoutError: a rank gave no answer; all are ended.
        """
        deadline_s = time.monotonic() + timeout_s
        members: list[tuple[Any, Connection]] = []
        with tempfile.TemporaryDirectory(prefix="rec-ranks-") as folder:
            try:
                for rank in range(world):
                    ours, theirs = self.context.Pipe()
                    given = (theirs, rank, world, f"{folder}/meeting", function, arguments)
                    process = self.context.Process(target=_run, args=given, daemon=True)
                    process.start()
                    theirs.close()
                    members.append((process, ours))
                return _answers(members, deadline_s)
            finally:
                for process, pipe in members:
                    process.kill()
                    process.join()
                    pipe.close()


def _answers(members: list[tuple[Any, Connection]], deadline_s: float) -> list[Any]:
    """Return what every rank answers; the first error ends the waiting."""
    found: dict[int, Any] = {}
    while len(found) < len(members):
        open_pipes = {pipe: rank for rank, (_, pipe) in enumerate(members) if rank not in found}
        ready = wait(list(open_pipes), timeout=max(0.1, deadline_s - time.monotonic()))
        if not ready:
            raise TimeoutError(f"ranks {sorted(open_pipes.values())} gave no answer in time")
        for pipe in ready:
            rank = open_pipes[pipe]  # type: ignore[index]
            try:
                ok, found[rank] = pipe.recv()  # type: ignore[union-attr]
            except (EOFError, ConnectionResetError):
                members[rank][0].join(timeout=10)
                raise RuntimeError(f"rank {rank} died with exit code {members[rank][0].exitcode}") from None
            if not ok:
                raise RuntimeError(f"rank {rank}:\n{found[rank]}")
    return [found[rank] for rank in range(len(members))]


def _run(
    pipe: Connection, rank: int, world: int, meeting: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(DS_ACCELERATOR="cpu", GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    import torch
    import torch.distributed

    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=world)
        answer = True, function(rank, world, *arguments)
        torch.distributed.barrier()  # gloo aborts a process whose peer leaves in the middle of an operation
    except BaseException:
        answer = False, traceback.format_exc()
    pipe.send(answer)
    pipe.recv_bytes()  # until it is ended
