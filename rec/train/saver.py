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

from rec.errors import StorageError, TrainingError
from rec.train.checkpoint import Checkpoint, CheckpointStore, RankFiles
from rec.train.ranks import Ranks
from rec.train.shards import TensorPiece

TOLD_S = 2.0
"""Seconds between reports of how far a save is."""
LOOK_S, MOST_LOOK_S = 0.02, 1.0
"""Seconds between the first looks for what other ranks have written, and between later ones."""
RETRY_S, PATIENCE_S = 5.0, 300.0
"""Seconds between tries to write what the storage has refused, and how long a checkpoint that must be is tried."""
MOST_MISSED = 3
"""Checkpoints in a row that may fail before the run ends: what is lost with it grows."""
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
        self.step = self.wrote = self.told = self.missed = 0
        self.best, self.trouble, self.troubled = False, "", -1
        """Of what is being saved: whether validation chose it, why the storage fails; the last step that told so."""
        self.given_up = threading.Event()
        self.give_up_s = float("inf")

    def restore(self, step: int) -> Checkpoint:
        """Return the checkpoint of a step, which every rank reads; what is being saved is saved first."""
        return self.store.load(step, self.ranks)

    def save(self, step: int, pieces: Sequence[TensorPiece], state: dict[str, Any], best: bool, report: Report) -> None:
        """Begin to save what this rank owns; returns when it is copied to host memory. Every rank calls it.

        Where the storage fails, a thread tries again until the next checkpoint is due, which then takes its place; one
        that is the best is waited for.

        Raises:
            TrainingError: the best could not be written for long, or several in a row could not.
        """
        self._end(report, must=self.best)
        copies = self._copied(pieces)
        name = self._begun(step, best, report)
        if name is None:
            return
        self.step, self.best, self.wrote, self.told, self.trouble = step, best, 0, 0, ""
        self.given_up.clear()
        self.give_up_s = float("inf")
        self.thread = threading.Thread(target=self._write, args=(name, copies, state, best), daemon=True, name="saver")
        self.thread.start()

    def poll(self, report: Report) -> None:
        """Report a save that is done, or that the storage fails; raise what else went wrong with one."""
        if self.thread is None:
            return
        if not self.thread.is_alive():
            self._take(report)
        elif self.trouble:
            self._tell_trouble(report)

    def wait(self, report: Report) -> None:
        """Return when nothing is being saved; meanwhile, report now and then. Every rank calls it.

        Raises:
            TrainingError: files could not be written for long.
        """
        self._end(report, must=True)

    def _end(self, report: Report, *, must: bool) -> None:
        """Return when nothing is being saved on any rank; what the storage does not take is given up unless it must be.

        Ranks tell each other every few seconds, as one may wait for another whose storage fails.
        """
        patience_s = time.monotonic() + PATIENCE_S
        while True:
            if self.thread is not None:
                self.thread.join(TOLD_S)
                self._tell_progress(report)
            runs = self.thread is not None and self.thread.is_alive()
            found = self.ranks.gather((runs, self.trouble if runs else "", time.monotonic() > patience_s))
            if not any(alive for alive, _, _ in found):
                self._take(report)
                return
            trouble = next((told for _, told, _ in found if told), "")
            if trouble and (not must or found[0][2]):
                break
        self._give_up(report)
        self._missed(trouble, must, report)

    def _begun(self, step: int, must: bool, report: Report) -> str | None:
        """Return the name of a save after clearing its place, None where it is not waited for a storage."""
        patience_s, trouble = time.monotonic() + (PATIENCE_S if must else 0), ""
        if self.ranks.rank == 0:  # nobody writes before it has cleared the folder
            while trouble := self._trouble_in(lambda: self.store.begin(step)):
                if time.monotonic() > patience_s:
                    break
                self.step, self.trouble = step, trouble
                self._tell_trouble(report)
                time.sleep(RETRY_S)
        name, trouble = self.ranks.broadcast((uuid.uuid4().hex, trouble))
        if not trouble:
            return str(name)
        self.step, self.best = step, False
        self._missed(trouble, must, report)
        return None

    def _missed(self, trouble: str, must: bool, report: Report) -> None:
        """Count a checkpoint that was not written; every rank does so for the same one."""
        self.missed += 1
        if must or self.missed > MOST_MISSED:
            others = f", nor the {self.missed - 1} before" if self.missed > 1 else ""
            raise TrainingError(f"the checkpoint of step {self.step} could not be written{others}: {trouble}")
        if self.ranks.rank == 0:
            text = f"the checkpoint of step {self.step} was not written; training goes on, and the next one is tried"
            report({"kind": "note", "rank": 0, "text": text})

    @staticmethod
    def _trouble_in(action: Callable[[], Any]) -> str:
        try:
            action()
        except StorageError as error:
            return str(error)
        return ""

    def _take(self, report: Report) -> None:
        """Take note of a save whose thread has ended.

        Raises:
            Exception: what ended it.
        """
        if self.thread is None:
            return
        self.thread.join()
        self.thread = None
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.missed = 0
        if self.ranks.rank == 0:
            report({"kind": "saved", "rank": 0, "total_step": self.step})

    def _give_up(self, report: Report) -> None:
        """End the thread; a request that is on its way is waited for."""
        self.give_up_s = 0.0
        self.given_up.set()
        while self.thread is not None and self.thread.is_alive():
            self.thread.join(TOLD_S)
            report({"kind": "waiting for storage", "rank": self.ranks.rank, "total_step": self.step})
        self.thread = self.error = None

    def _tell_progress(self, report: Report) -> None:
        if self.trouble:
            self._tell_trouble(report)
            report({"kind": "waiting for storage", "rank": self.ranks.rank, "total_step": self.step})
        elif self.wrote != self.told:
            self.told = self.wrote
            report({"kind": "writing", "rank": self.ranks.rank, "total_step": self.step, "bytes": self.wrote})

    def _tell_trouble(self, report: Report) -> None:
        """Tell once of a save that the storage fails."""
        if self.troubled != self.step:
            self.troubled = self.step
            text = f"the checkpoint of step {self.step} cannot be written yet: {self.trouble}; it is tried again"
            report({"kind": "trouble", "rank": self.ranks.rank, "total_step": self.step, "text": text})

    def abandon(self) -> None:
        """Let what is being saved come to its end where it can, after training has failed; tells nobody."""
        self.give_up_s = time.monotonic() + GRACE_S
        self.given_up.set()
        if self.thread is not None and self.thread.ident is not None:  # a run may end just before it starts
            self.thread.join()
        self.thread = self.error = None

    def _copied(self, pieces: Sequence[TensorPiece]) -> list[TensorPiece]:
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

    def _write(self, save: str, pieces: Sequence[TensorPiece], state: dict[str, Any], best: bool) -> None:
        """Write this rank's files; on the first rank, all that makes them count; again while the storage fails."""
        try:
            while trouble := self._trouble_in(lambda: self._written(save, pieces, state, best)):
                self.trouble = trouble
                if self.given_up.wait(RETRY_S):
                    raise StorageError(trouble)
            self.trouble = ""
        except BaseException as error:
            self.error = error

    def _written(self, save: str, pieces: Sequence[TensorPiece], state: dict[str, Any], best: bool) -> None:
        own = self.store.write(self.step, self.ranks.rank, pieces, self._count)
        if self.ranks.rank:
            self.store.tell(self.step, self.ranks.rank, save, own)
            return
        others = [self._told(rank, save) for rank in range(1, self.ranks.world_size)]
        self.store.finish(self.step, [own, *others], state, best)
        self.after(state)

    def _count(self, size: int) -> None:
        self.wrote += size

    def _told(self, rank: int, save: str) -> RankFiles:
        """Return what another rank has written."""
        look_s = LOOK_S
        while (part := self.store.told(self.step, rank, save)) is None:
            if time.monotonic() > self.give_up_s:
                raise TimeoutError(f"rank {rank} has not told what it has written")
            time.sleep(look_s)
            look_s = min(MOST_LOOK_S, 1.2 * look_s)  # each look is a request where the storage is an object store
        return part
