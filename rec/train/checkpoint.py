"""Checkpoints that are complete or absent: a folder per step, its manifest with sizes and checksums written last.

    checkpoints/step-00001200/{model,optimizer}.safetensors  state.json  manifest.json
    checkpoints/best.json        which step validation chose

The format knows no world size: every tensor is whole and filed by parameter name.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load, save

from rec.errors import CheckpointError, DataError
from rec.json_text import json_text
from rec.storage import Storage
from rec.train.engine import State

MANIFEST = "manifest.json"
BEST = "best.json"
KEEP_LAST, FORMAT = 2, 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One step's tensors and the loop's state."""

    step: int
    tensors: State
    state: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def save(self, checkpoint: Checkpoint, best: bool) -> None:
        """Write a checkpoint, mark it as the best if it is, and delete those that are neither best nor recent."""
        folder = _folder(checkpoint.step)
        self.storage.delete(folder)
        parts = {
            kind: {name: t.contiguous() for name, t in checkpoint.tensors.items() if name.startswith(f"{kind}.")}
            for kind in ("model", "optimizer")
        }
        names = [f"{folder}/{kind}.safetensors" for kind in parts] + [f"{folder}/state.json"]
        for name, tensors in zip(names, parts.values(), strict=False):
            self.storage.write(name, save(tensors))
        self.storage.write_json(names[-1], checkpoint.state)
        entries = [self.storage.entry(name) for name in names]
        self.storage.write_json(f"{folder}/{MANIFEST}", {"format": FORMAT, "step": checkpoint.step, "files": entries})
        if best:
            self.storage.write_json(BEST, {"step": checkpoint.step})
        self._drop_others(checkpoint.step)

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
                self.storage.delete(name)

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints that have a manifest, in order."""
        return sorted(_step(name) for name in self._names() if self.storage.exists(f"{name}/{MANIFEST}"))

    def _names(self) -> list[str]:
        return [name for name in self.storage.list() if name.startswith("step-")]

    def best_step(self) -> int | None:
        """Return the step that validation chose, None before the first evaluation."""
        return int(self.storage.read_json(BEST)["step"]) if self.storage.exists(BEST) else None

    def faults(self, step: int) -> list[str]:
        """Return what is wrong with a checkpoint's files, empty where it is whole."""
        try:
            manifest = self.storage.read_json(f"{_folder(step)}/{MANIFEST}")
            entries = manifest["files"]
        except (DataError, KeyError, TypeError) as error:
            return [f"{self.storage.uri}/{_folder(step)}/{MANIFEST}: {error}"]
        if manifest.get("format") != FORMAT:
            raise CheckpointError(
                f"{self.storage.uri}/{_folder(step)}: format {manifest.get('format', 1)}, expected {FORMAT}: another "
                "version wrote it; train in another out="
            )
        try:
            return [fault for entry in entries if (fault := self.storage.fault(entry))]
        except (DataError, KeyError, TypeError) as error:
            return [f"{self.storage.uri}/{_folder(step)}/{MANIFEST}: {error}"]

    def newest_valid(self) -> tuple[int | None, list[str]]:
        """Return the step of the newest whole checkpoint, None if there is none, and the faults of newer ones."""
        faults: list[str] = []
        for step in reversed(self.steps()):
            found = self.faults(step)
            if not found:
                return step, faults
            faults += found
        return None, faults

    def load(self, step: int) -> Checkpoint:
        """Return the checkpoint of a step after checking every byte of it.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        if faults := self.faults(step):
            raise CheckpointError("; ".join(faults))
        folder = _folder(step)
        tensors = load(self.storage.read(f"{folder}/model.safetensors"))
        tensors |= load(self.storage.read(f"{folder}/optimizer.safetensors"))
        return Checkpoint(step, tensors, json.loads(self.storage.read(f"{folder}/state.json")))

    def state(self, step: int) -> dict[str, Any]:
        """Return the loop's state at a checkpoint, without its tensors."""
        state: dict[str, Any] = self.storage.read_json(f"{_folder(step)}/state.json")
        return state

    def identity(self, step: int) -> str:
        """Return what tells this checkpoint's weights from any others': a hash of its files' checksums."""
        entries = self.storage.read_json(f"{_folder(step)}/{MANIFEST}")["files"]
        sums = json_text([(entry["name"], entry["sha256"]) for entry in entries if "model" in entry["name"]])
        return hashlib.sha256(sums.encode()).hexdigest()

    def copy(self, step: int, target: CheckpointStore) -> None:
        """Copy a checkpoint into another store, where it counts as the best."""
        folder = _folder(step)
        names = [entry["name"] for entry in self.storage.read_json(f"{folder}/{MANIFEST}")["files"]]
        for name in (*names, f"{folder}/{MANIFEST}"):
            target.storage.write(name, self.storage.read(name))
        target.storage.write_json(BEST, {"step": step})

    def load_best(self) -> Checkpoint:
        """Return the checkpoint that validation chose.

        Raises:
            CheckpointError: the run has none, or it is damaged.
        """
        step = self.best_step()
        if step is None:
            raise CheckpointError(f"{self.storage.uri}: no checkpoint was chosen yet; run `rec train CONFIG` first")
        return self.load(step)


def _folder(step: int) -> str:
    return f"step-{step:08d}"


def _step(folder: str) -> int:
    return int(folder.removeprefix("step-"))
