"""An artifact: everything that answers need, in one folder that is complete or absent.

artifact.json       manifest, written last: system, counts, where it came from, and every file with size and checksum
config.toml         the run's config             model.safetensors   the weights that validation chose
tables/*.npy        inputs of the model          catalogue/*.npy     what is computed once per model
items/, users/      raw ids, both ways           items.arrow         item metadata for people
users/offset.npy, users/history.npy              everything each known user has seen
users/state/*.npy   what a ranking needs of each known user, where the system ranks by states
example.json        a request and its answer     serve.yaml, rayservice.yaml   for `serve deploy` and for KubeRay

Tables are memory-mapped: replicas on one machine share one copy in the page cache.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save
from torch import nn

from rec.config import RunConfig, load, to_toml
from rec.data.prepared import Prepared, write_array
from rec.errors import CheckpointError, DataError
from rec.serving.ids import Ids
from rec.storage import Storage
from rec.system import System
from rec.systems.capabilities import Ranker
from rec.train.checkpoint import CheckpointStore
from rec.train.engine import load_model
from rec.train.job import build, build_from

MANIFEST, FORMAT = "artifact.json", 1
STATE_BATCH = 256
METADATA = ("title", "image")
"""Columns of the item table that people are shown: words, and a picture's bytes or address."""


@dataclass(frozen=True)
class Artifact:
    """An artifact whose manifest has been read."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str) -> Artifact:
        """Return the artifact in a local folder after checking sizes of all files.

        Raises:
            DataError: there is none, it is not whole, or another version wrote it.
        """
        folder = Path(path).absolute()
        return cls(folder, Storage(str(folder)).manifest(MANIFEST, FORMAT, "artifact", "rec export CONFIG"))

    def verify(self) -> None:
        """Check every file against its checksum.

        Raises:
            DataError: a file differs.
        """
        storage = Storage(str(self.path))
        for entry in self.manifest["files"]:
            if fault := storage.fault(entry):
                raise DataError(f"{fault}; export the artifact again")

    @property
    def name(self) -> str:
        """Name of the folder, by which the artifact is served."""
        return self.path.name

    @property
    def config(self) -> RunConfig:
        """The run's config."""
        return load(self.path / "config.toml")

    def array(self, name: str) -> np.ndarray:
        """Return a file as an array that is shared with every process that maps it; writing to it copies."""
        return np.asarray(np.load(self.path / f"{name}.npy", mmap_mode="c"))

    def items(self) -> pa.Table:
        """Return the item metadata, memory-mapped; row i is item i, row 0 padding."""
        with pa.memory_map(str(self.path / "items.arrow")) as file:
            return pa.ipc.open_file(file).read_all()

    def example(self) -> dict[str, Any]:
        """Return the example: `path`, `request` and `answer`."""
        found: dict[str, Any] = json.loads((self.path / "example.json").read_text())
        return found

    def system(self) -> tuple[Any, nn.Module]:
        """Return the system and its model, ready to answer; weights and tables are mapped, not copied.

        Raises:
            CheckpointError: the weights do not fit the config.
        """
        tables = {name: self.array(f"tables/{name}") for name in self.manifest["tables"]}
        system: Any = build_from(self.config, tables)
        module = system.model().eval().requires_grad_(False)
        try:
            module.load_state_dict(load_file(self.path / "model.safetensors"), assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"{self.path}: the weights do not fit the config: {error}") from error
        catalogue = {name: torch.from_numpy(self.array(f"catalogue/{name}")) for name in self.manifest["catalogue"]}
        if catalogue:
            system.freeze(module, catalogue)
        return system, module


def export_run(
    config: RunConfig, target: str, example: Callable[[Artifact], dict[str, Any]], extras: dict[str, str]
) -> Artifact:
    """Write a run's best checkpoint and all it needs into `target`, in the place of what was there.

    Args:
        config: The run.
        target: A local folder; it appears when it is complete.
        example: Makes the example request and its answer from the artifact that is nearly done.
        extras: Further text files by name.

    Raises:
        CheckpointError, DataError: the run or its data set is not there or damaged.
    """
    final = Path(target).absolute()
    building = final.with_name(f".{final.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        _write(config, Storage(str(building)), example, extras)
        before = final.with_name(f".{final.name}.before")
        shutil.rmtree(before, ignore_errors=True)
        if final.exists():
            if not (final / MANIFEST).exists():
                raise DataError(f"{target}: exists and is no artifact; choose another folder")
            final.rename(before)
        building.rename(final)
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Artifact.open(str(final))


def _write(
    config: RunConfig, storage: Storage, example: Callable[[Artifact], dict[str, Any]], extras: dict[str, str]
) -> None:
    data = Prepared.open(config.data.root)
    system = build(config, data)
    checkpoint = CheckpointStore(Storage(config.out).below("checkpoints")).load_best()
    module = system.model().eval().requires_grad_(False)
    load_model(module, checkpoint.tensors)
    storage.write("config.toml", to_toml(config).encode())
    storage.write("model.safetensors", save({k: v.contiguous() for k, v in module.state_dict().items()}))
    with torch.inference_mode():
        catalogue = {name: value.numpy() for name, value in system.catalogue(module).items()}
        vector_ID = system.item_vectors(module) if isinstance(system, Ranker) else None
        if vector_ID is not None:
            catalogue["item_ID"] = vector_ID.contiguous().numpy()
    for name, value in catalogue.items():
        write_array(storage, f"catalogue/{name}", value)
    for name, value in system.static.items():
        write_array(storage, f"tables/{name}", np.asarray(value))
    _write_items(data, storage)
    users = _write_users(data, storage)
    states = _write_states(system, module, storage, users) if users else []
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "system": config.system,
        "run": config.out,
        "step": checkpoint.step,
        "counts": {"users": users, "items": data.num_items},
        "modalities": list(system.modalities or data.modalities),
        "tables": list(system.static),
        "catalogue": list(catalogue),
        "states": states,
        "files": [],
    }
    for name, text in extras.items():
        storage.write(name, text.encode())
    storage.write_json("example.json", example(Artifact(Path(storage.root), manifest)))
    # What people edit, as ports, is no part of what must be whole.
    manifest["files"] = [storage.entry(name) for name in _files(Path(storage.root)) if name not in extras]
    storage.write_json(MANIFEST, manifest)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _write_items(data: Prepared, storage: Storage) -> None:
    """Write ids (index 0 is padding) and what people are shown."""
    Ids.of(["", *data.items["id"].to_pylist()]).write(storage, "items")
    shown = {n: [None, *data.items[n].to_pylist()] for n in METADATA if n in data.items.column_names}
    table = pa.table({"index": np.arange(data.num_items + 1), **shown})

    def fill(stream: Any) -> None:
        with pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table)

    storage.write_with("items.arrow", fill)


def _write_users(data: Prepared, storage: Storage) -> int:
    """Write ids and everything that each user has seen, the test target included: serving knows all of the past."""
    if "history" not in data.rows("test").column_names:
        return 0
    Ids.of(data.users["id"].to_pylist()).write(storage, "users")
    by_user: list[np.ndarray | None] = [None] * data.num_users
    for split in ("test", "val", "train"):  # a later split knows more; who is in none has seen nothing
        rows = data.rows(split)
        columns = (rows[name].to_numpy() for name in ("user", "history", "target"))
        for user, history, target in zip(*columns, strict=True):
            if by_user[user] is None:
                by_user[user] = np.append(history, target)
        if all(history is not None for history in by_user):
            break
    histories = [np.empty(0, np.int32) if history is None else history for history in by_user]
    write_array(storage, "users/offset", np.cumsum([0, *map(len, histories)]).astype(np.int64))
    write_array(storage, "users/history", np.concatenate(histories).astype(np.int32))
    return data.num_users


def _write_states(system: System[Any, Any], module: nn.Module, storage: Storage, users: int) -> list[str]:
    """Write the states of all known users and return their names."""
    offset, history = (np.load(storage.path(f"users/{name}.npy"), mmap_mode="r") for name in ("offset", "history"))
    if not isinstance(system, Ranker) or not {column.name for column in system.columns} <= {
        "user",
        "history",
        "target",
    }:
        return []
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, users, STATE_BATCH):
        end = min(start + STATE_BATCH, users)
        histories = [np.asarray(history[offset[u] : offset[u + 1]], np.int64) for u in range(start, end)]
        rows = {"user": np.arange(start, end), "history": histories, "target": np.zeros(end - start, np.int64)}
        with torch.inference_mode():
            for name, value in system.states(module, system.collate(rows)).items():
                parts.setdefault(name, []).append(value.numpy())
    for name, arrays in parts.items():
        write_array(storage, f"users/state/{name}", np.concatenate(arrays))
    return list(parts)
