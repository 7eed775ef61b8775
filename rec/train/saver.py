"""Checkpoints saved in the background: training waits for copies to host memory, a thread writes them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rec.train.checkpoint import Checkpoint, CheckpointStore, Part
from rec.train.ranks import Ranks
from rec.train.shards import Piece

TOLD_S, LOOK_S = 2.0, 0.02
"""Seconds between reports of how far a save is, and between looks for what other ranks have written."""
GRACE_S = 10.0
"""Seconds that a run which has failed waits for the other ranks' parts of its last save."""
Report = Callable[[dict[str, Any]], None]


class Saver:
    """Writes the checkpoints of a run, as one of its ranks, one at a time.

    Every rank writes its own files; the first one waits for what the others tell of theirs, through the storage, and
    writes the manifest, so that no thread sends messages while training does.

    Args:
        store: The checkpoints.
        ranks: The processes of the run.
        after: Called on the first rank with the loop's state when a checkpoint is whole.
    """

    def __init__(
        self, store: CheckpointStore, ranks: Ranks, after: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> None:
        self.store, self.ranks, self.after = store, ranks, after
        self.buffers: dict[tuple[str, int], Tensor] = {}
        """Host memory of the last save, used again by the next."""
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.step = self.wrote = self.told = 0
        self.give_up_s = float("inf")

    def restore(self, step: int) -> Checkpoint:
        """Return the checkpoint of a step, which every rank reads; what is being saved is saved first."""
        return self.store.load(step, self.ranks)

    def save(self, step: int, pieces: Sequence[Piece], state: dict[str, Any], best: bool, report: Report) -> None:
        """Begin to save what this rank owns; returns when it is copied to host memory. Every rank calls it.

        Raises:
            DataError: the save before could not be written.
        """
        self.wait(report)
        copies = self._copied(pieces)
        if self.ranks.rank == 0:
            self.store.begin(step)
        save = self.ranks.broadcast(uuid.uuid4().hex)  # nobody writes before the first rank has cleared the folder
        self.step, self.wrote, self.told = step, 0, 0
        self.thread = threading.Thread(target=self._write, args=(save, copies, state, best), daemon=True, name="saver")
        self.thread.start()

    def poll(self, report: Report) -> None:
        """Report a save that is done; raise what went wrong with one."""
        if self.thread is not None and not self.thread.is_alive():
            self.wait(report)

    def wait(self, report: Report) -> None:
        """Return when nothing is being saved; meanwhile, report now and then that bytes are written.

        Raises:
            DataError: files could not be written.
        """
        if self.thread is None:
            return
        while self.thread.is_alive():
            self.thread.join(TOLD_S)
            if self.wrote != self.told:
                self.told = self.wrote
                report({"kind": "writing", "rank": self.ranks.rank, "total_step": self.step, "bytes": self.wrote})
        self.thread = None
        error, self.error = self.error, None
        if error is not None:
            raise error
        if self.ranks.rank == 0:
            report({"kind": "saved", "rank": 0, "total_step": self.step})

    def abandon(self) -> None:
        """Let what is being saved come to its end where it can, after training has failed; tells nobody."""
        self.give_up_s = time.monotonic() + GRACE_S
        if self.thread is not None and self.thread.ident is not None:  # a run may end just before it starts
            self.thread.join()
        self.thread = self.error = None

    def _copied(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Return pieces whose values are in memory of their own on the host, in that of the save before if it fits."""
        buffers: dict[tuple[str, int], Tensor] = {}
        for piece in pieces:
            key, values = (piece.name, piece.at), piece.values.detach()
            buffer = self.buffers.pop(key, None)
            if buffer is None or buffer.shape != values.shape or buffer.dtype != values.dtype:
                buffer = torch.empty_like(values, device="cpu", pin_memory=values.is_cuda)
            buffers[key] = buffer.copy_(values, non_blocking=True)
        self.buffers = buffers
        if any(piece.values.is_cuda for piece in pieces):
            torch.cuda.synchronize()
        return [replace(piece, values=buffers[piece.name, piece.at]) for piece in pieces]

    def _write(self, save: str, pieces: Sequence[Piece], state: dict[str, Any], best: bool) -> None:
        """Write this rank's files; on the first rank, all that makes them count."""
        try:
            own = self.store.write(self.step, self.ranks.rank, pieces, self._count)
            if self.ranks.rank:
                self.store.tell(self.step, self.ranks.rank, save, own)
                return
            others = [self._told(rank, save) for rank in range(1, self.ranks.world_size)]
            self.store.finish(self.step, [own, *others], state, best)
            self.after(state)
        except BaseException as error:
            self.error = error

    def _count(self, size: int) -> None:
        self.wrote += size

    def _told(self, rank: int, save: str) -> Part:
        """Return what another rank has written."""
        while (part := self.store.told(self.step, rank, save)) is None:
            if time.monotonic() > self.give_up_s:
                raise TimeoutError(f"rank {rank} has not told what it has written")
            time.sleep(LOOK_S)
        return part
