"""Checkpoints that are complete or absent: a folder per step, its manifest with sizes and checksums written last.

    checkpoints/step-00001200/{model,optimizer}-RANK-NUMBER.safetensors   what a rank owns, see rec.train.shards
                              part-RANK.json   what other ranks than the first tell it of their files
                              state.json  manifest.json
    checkpoints/best.json     which step validation chose

The format knows no world size: the manifest says of every tensor, by name, which file holds which of its numbers.
Nothing but the manifest makes files count, so that they are written where they stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rec.errors import CheckpointError, DataError, StorageError
from rec.json_text import json_text
from rec.storage import Storage
from rec.train.ranks import OneRank, Ranks
from rec.train.shards import (
    SHARD_BYTES,
    Saved,
    Stored,
    TensorPiece,
    Tensors,
    Wrote,
    joined,
    merged,
    of_file,
    shared_out,
    write_shard,
)

MANIFEST, STATE = "manifest.json", "state.json"
BEST = "best.json"
KEEP_LAST, FORMAT, BEFORE = 2, 3, 2
"""Checkpoints that are kept beside the best; the format that is written, and an older one that is read."""
KINDS = ("model", "optimizer")
MODEL = KINDS[:1]
ALONE = OneRank()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One step's tensors, which are read when they are asked for, and the loop's state."""

    step: int
    tensors: Tensors
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RankFiles:
    """What one rank has written."""

    files: Sequence[dict[str, Any]]
    tensors: Mapping[str, Stored]

    def as_json(self) -> dict[str, Any]:
        """Return the part as plain values."""
        names = [entry["name"] for entry in self.files]
        return {"files": self.files, "tensors": {n: stored.as_json(names) for n, stored in self.tensors.items()}}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> RankFiles:
        """Return a part from plain values."""
        names = [entry["name"] for entry in value["files"]]
        return cls(value["files"], {n: Stored.of_json(stored, names) for n, stored in value["tensors"].items()})


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, storage: Storage, shard_bytes: int = SHARD_BYTES) -> None:
        self.storage, self.shard_bytes = storage, shard_bytes

    def begin(self, step: int) -> None:
        """Delete what is there of a step; before any rank writes."""
        self._delete(_folder(step))

    def _delete(self, folder: str) -> None:
        """Delete a checkpoint: its manifest first, as where files go one by one nobody must take the rest for whole."""
        self.storage.delete(f"{folder}/{MANIFEST}")
        self.storage.delete(folder)

    def write(self, step: int, rank: int, pieces: Sequence[TensorPiece], wrote: Wrote = lambda _: None) -> RankFiles:
        """Write what a rank owns, and return what it has written."""
        files, tensors = [], []
        for kind in KINDS:
            own = [piece for piece in pieces if piece.name.startswith(f"{kind}.")]
            for number, group in enumerate(shared_out(own, self.shard_bytes)):
                name = f"{_folder(step)}/{kind}-{rank:03d}-{number:03d}.safetensors"
                entry, stored = write_shard(self.storage, name, group, wrote)
                files.append(entry)
                tensors.append(stored)
        return RankFiles(files, joined(tensors))

    def tell(self, step: int, rank: int, save: str, part: RankFiles) -> None:
        """Tell the first rank what this one has written for a save."""
        self.storage.write(_part(step, rank), json_text({"save": save, **part.as_json()}).encode())

    def told(self, step: int, rank: int, save: str) -> RankFiles | None:
        """Return what a rank has told of its part of a save, None before it has."""
        name = _part(step, rank)
        if not self.storage.exists(name):
            return None
        found = self.storage.read_json(name)
        return RankFiles.of_json(found) if found["save"] == save else None

    def finish(self, step: int, parts: Sequence[RankFiles], state: dict[str, Any], best: bool) -> None:
        """Make the parts of all ranks a checkpoint, mark it as the best if it is, delete what is old and not the best.

        Raises:
            CheckpointError: the parts do not make whole tensors.
        """
        folder = _folder(step)
        self.storage.write_json(f"{folder}/{STATE}", state)
        files = [*(entry for part in parts for entry in part.files), self.storage.entry(f"{folder}/{STATE}")]
        whole = RankFiles(files, merged(part.tensors for part in parts))
        manifest = {"format": FORMAT, "step": step, **whole.as_json()}
        self.storage.write(f"{folder}/{MANIFEST}", json_text(manifest | {"sha256": _digest(manifest)}).encode())
        if best:
            self.storage.write_json(BEST, {"step": step})
        self._drop_others(step)

    def settle(self, step: int) -> None:
        """Finish what a command has not that was stopped after it had written a checkpoint.

        The best one is the one that the state at `step`, the newest whole checkpoint, names.
        """
        self.storage.tidy()
        best = self.state(step).get("best_step")
        if best in self.steps() and best != self.best_step():
            self.storage.write_json(BEST, {"step": best})
        self._drop_others(step)

    def _drop_others(self, step: int) -> None:
        """Delete every checkpoint that is neither the best, nor recent, nor of this step, whole or not."""
        keep = {self.best_step(), *self.steps()[-KEEP_LAST:], step}
        for name in self._names():
            if _step(name) not in keep:
                self._delete(name)

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints that have a manifest, in order."""
        return sorted(_step(name) for name in self._names() if self.storage.exists(f"{name}/{MANIFEST}"))

    def _names(self) -> list[str]:
        return [name for name in self.storage.list() if name.startswith("step-")]

    def best_step(self) -> int | None:
        """Return the step that validation chose, None before the first evaluation."""
        return int(self.storage.read_json(BEST)["step"]) if self.storage.exists(BEST) else None

    def faults(self, step: int, ranks: Ranks = ALONE, kinds: Sequence[str] = KINDS, *, deep: bool = True) -> list[str]:
        """Return what is wrong with a checkpoint's files, empty where it is whole.

        Ranks share the files out, so that each is read once, and all return the same. Files of tensors count where
        they are of these kinds; without `deep` they have to have their size only.

        Raises:
            CheckpointError: another version wrote it.
            StorageError: it cannot be looked at.
        """
        own: list[str] = []
        try:
            manifest = self._manifest(step)
            entries = [entry for entry in manifest["files"] if _kind(entry["name"]) in (*kinds, "")]
            order = sorted(entries, key=lambda entry: (-entry["bytes"], entry["name"]))
            for entry in order[ranks.rank :: ranks.world_size]:
                fault = self.storage.fault(entry, deep=deep or not _kind(entry["name"]))
                own += [fault] if fault else []
        except StorageError:  # which tells nothing of the files
            raise
        except (DataError, KeyError, TypeError, OSError) as error:
            own = [f"{self.storage.uri_of(f'{_folder(step)}/{MANIFEST}')}: {error}"]
        return sorted({fault for found in ranks.gather(own) for fault in found})

    def _manifest(self, step: int) -> dict[str, Any]:
        """Return a checkpoint's manifest.

        Raises:
            CheckpointError: another version wrote it.
            DataError: it is damaged.
        """
        found: dict[str, Any] = self.storage.read_json(f"{_folder(step)}/{MANIFEST}")
        if not isinstance(found, dict):
            raise DataError("holds no table")
        if (version := found.get("format", 1)) not in (FORMAT, BEFORE):
            raise CheckpointError(
                f"{self.storage.uri_of(_folder(step))}: format {version}, expected {FORMAT}: another version wrote it; "
                "train in another out="
            )
        if (version == FORMAT or "sha256" in found) and found.pop("sha256", None) != _digest(found):
            raise DataError("checksum differs from what it holds")
        return found

    def newest_valid(
        self, ranks: Ranks = ALONE, most: int | None = None, *, deep: bool = True
    ) -> tuple[int | None, list[str]]:
        """Return the step of the newest whole checkpoint, None if there is none, and the faults of newer ones.

        Args:
            ranks: Share the files out; all return the same.
            most: The newest step that counts.
            deep: Whether checksums of tensors are looked at; else sizes.
        """
        faults: list[str] = []
        for step in reversed(ranks.broadcast(self.steps())):
            if most is not None and step > most:
                continue
            found = self.faults(step, ranks, deep=deep)
            if not found:
                return step, faults
            faults += found
        return None, faults

    def load(
        self, step: int, ranks: Ranks = ALONE, kinds: Sequence[str] = KINDS, *, checked: bool = False
    ) -> Checkpoint:
        """Return the checkpoint of a step after checking every byte of these kinds, unless that has been done.

        Raises:
            CheckpointError: a file is missing or damaged; every rank says so before any has read a tensor.
        """
        if not checked and (faults := self.faults(step, ranks, kinds)):
            raise CheckpointError("; ".join(faults))
        stored = {
            name: one for name, one in self._stored(step).items() if name.startswith(tuple(f"{k}." for k in kinds))
        }
        return Checkpoint(step, Saved(self.storage, stored), self.state(step))

    def _stored(self, step: int) -> Mapping[str, Stored]:
        manifest = self._manifest(step)
        if manifest["format"] == FORMAT:
            return RankFiles.of_json(manifest).tensors
        names = [entry["name"] for entry in manifest["files"]]
        return joined([of_file(self.storage, name) for name in names if name.endswith(".safetensors")])

    def state(self, step: int) -> dict[str, Any]:
        """Return the loop's state at a checkpoint, without its tensors."""
        state: dict[str, Any] = self.storage.read_json(f"{_folder(step)}/{STATE}")
        return state

    def identity(self, step: int) -> str:
        """Return what tells this checkpoint's weights from any others': a hash of its files' checksums."""
        entries = self._manifest(step)["files"]
        sums = json_text([(entry["name"], entry["sha256"]) for entry in entries if "model" in entry["name"]])
        return hashlib.sha256(sums.encode()).hexdigest()

    def copy(self, step: int, target: CheckpointStore) -> None:
        """Copy a checkpoint into another store, where it counts as the best."""
        names = [entry["name"] for entry in self._manifest(step)["files"]]
        for name in (*names, f"{_folder(step)}/{MANIFEST}"):
            self.storage.copy(name, target.storage)
        target.storage.write_json(BEST, {"step": step})

    def load_best(self) -> Checkpoint:
        """Return the model of the checkpoint that validation chose.

        Raises:
            CheckpointError: the run has none, or it is damaged.
        """
        step = self.best_step()
        if step is None:
            raise CheckpointError(f"{self.storage.uri}: no checkpoint was chosen yet; run `rec train CONFIG` first")
        if faults := self.faults(step, kinds=MODEL):
            whole = [str(other) for other in self.steps() if other != step and not self.faults(other)]
            raise CheckpointError(
                f"{'; '.join(faults)}: the checkpoint that validation chose, step {step}, is damaged; whole are "
                f"{', '.join(whole) or 'no others'}; put the file back, or train in another out="
            )
        return self.load(step, kinds=MODEL, checked=True)


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_text(manifest, sort_keys=True).encode()).hexdigest()


def _folder(step: int) -> str:
    return f"step-{step:08d}"


def _part(step: int, rank: int) -> str:
    return f"{_folder(step)}/part-{rank:03d}.json"


def _step(folder: str) -> int:
    return int(folder.removeprefix("step-"))


def _kind(name: str) -> str:
    """Return whether a file holds parts of the model or the optimiser, empty for neither."""
    base = name.rpartition("/")[2]
    return next((kind for kind in KINDS if base.startswith(kind)), "")
