"""An artifact: everything that answers need, in one folder that is complete or absent.

    artifact.json       manifest, written last: system, entities, tasks, where it came from, every file's checksum
    config.toml         the run's config             model.safetensors   the weights that validation chose
    tables/*.npy        inputs of the model          catalogue/*.npy     what is computed once per model
    entities/NAME/      raw ids, both ways, and what people are shown of each member
    tasks/NAME/         what a task wrote, such as what is known of subjects
    source/             the files of a system of one's own, which it is imported from where nothing else has it
    example.json        a request and its answer     serve.yaml, rayservice.yaml   for `serve deploy` and for KubeRay

Tables are memory-mapped: replicas on one machine share one copy in the page cache.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from rec.config import RunConfig, from_table, to_toml
from rec.data.members import Members
from rec.data.prepared import Prepared, open_prepared
from rec.data.writing import write_array
from rec.errors import CheckpointError, DataError
from rec.evaluation.protocol import data_of
from rec.evaluation.run import warning_of
from rec.evaluation.service import Exporting
from rec.evaluation.settled import settle, use
from rec.nn.making import made_empty
from rec.serving.remote import fetch
from rec.storage import Storage, absolute
from rec.strict import on_path, sources_of
from rec.systems.api import System
from rec.train.engine import load_model
from rec.train.job import build, build_from, load_chosen
from rec.train.shards import TensorPiece, write_shard

MANIFEST, FORMAT = "artifact.json", 2
SOURCE = "source"
"""Folder with the files of a system that is no part of an installed package."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Artifact:
    """An artifact whose manifest has been read."""

    path: Path
    manifest: dict[str, Any]
    uri: str = ""
    """What it was opened by, where it lies elsewhere."""

    @classmethod
    def open(cls, path: str) -> Artifact:
        """Return the artifact in a folder after checking sizes of all files; one elsewhere is fetched first.

        Raises:
            DataError: there is none, it is not whole, or another version wrote it.
        """
        manifest = Storage(path).manifest(MANIFEST, FORMAT, "artifact", "rec export CONFIG")
        elsewhere = "folder" in manifest  # also a copy of one that was elsewhere
        return cls(fetch(path, manifest, MANIFEST) if elsewhere else Path(path).absolute(), manifest, absolute(path))

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
    def place(self) -> str:
        """What opens it on every node: a URI, or its absolute path."""
        return self.uri or str(self.path)

    @property
    def name(self) -> str:
        """Name of the folder, by which the artifact is served."""
        return self.path.name

    @property
    def config(self) -> RunConfig:
        """The run's config."""
        on_path(self.path / SOURCE)
        return from_table(tomllib.loads((self.path / "config.toml").read_text(encoding="utf-8")))

    def array(self, name: str) -> np.ndarray:
        """Return a file as an array that is shared with every process that maps it; writing to it copies."""
        return np.asarray(np.load(self.path / f"{name}.npy", mmap_mode="c"))

    def members(self, entity: str) -> Members:
        """Return the members of an entity, memory-mapped."""
        if entity not in self._members:
            first = int(self.manifest["entities"][entity]["first"])
            self._members[entity] = Members.open(self.path / "entities" / entity, entity, first)
        return self._members[entity]

    @cached_property
    def _members(self) -> dict[str, Members]:
        return {}

    def example(self) -> dict[str, Any]:
        """Return the example: `path`, `request` and `answer`, and `row`, one of the test split."""
        found: dict[str, Any] = json.loads((self.path / "example.json").read_text())
        return found

    def system(self, device: torch.device) -> tuple[Any, nn.Module]:
        """Return the system and its model on a device, ready to answer.

        On a CPU weights and tables are mapped, not copied.

        Raises:
            CheckpointError: the weights do not fit the config.
        """
        tables = {name: self.array(f"tables/{name}") for name in self.manifest["tables"]}
        system: Any = build_from(self.config, tables)
        module = made_empty(system.model).eval().requires_grad_(False)
        try:
            module.load_state_dict(load_file(self.path / "model.safetensors"), assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"{self.path}: the weights do not fit the config: {error}") from error
        module.to(device)
        use(system, self.manifest.get("settled", {}))
        catalogue = {
            name: torch.from_numpy(self.array(f"catalogue/{name}")).to(device) for name in self.manifest["catalogue"]
        }
        if catalogue:
            system.freeze(module, catalogue)
        return system, module


@dataclass(frozen=True)
class TaskParts:
    """What a task's service reads of an artifact."""

    artifact: Artifact
    task: str

    def members(self, entity: str) -> Members:
        """Return the members of an entity."""
        return self.artifact.members(entity)

    def array(self, name: str) -> np.ndarray:
        """Return an array that the task wrote, memory-mapped."""
        return self.artifact.array(f"tasks/{self.task}/{name}")

    def path(self, name: str) -> Path:
        """Return where a file lies that the task wrote."""
        return self.artifact.path / "tasks" / self.task / name


def export_run(
    config: RunConfig, target: str, example: Callable[[Artifact], dict[str, Any]], extras: dict[str, str], say: Say
) -> Artifact:
    """Write a run's best checkpoint and all it needs into `target`, in the place of what was there.

    Args:
        config: The run.
        target: A local folder; it appears when it is complete.
        example: Makes the example request and its answer from the artifact that is nearly done.
        extras: Further text files by name.
        say: Told what was measured.

    Raises:
        CheckpointError, DataError: the run or its data set is not there or damaged.
    """
    final = Path(target).absolute()
    place, building, before = Storage(str(final.parent)), f".{final.name}.building", f".{final.name}.before"
    place.tidy()
    if not final.exists() and place.exists(before):  # a command was stopped between the two moves below
        place.move(before, final.name)
    if final.exists() and not (final / MANIFEST).exists():
        raise DataError(f"{target}: exists and is no artifact; choose another folder")
    place.delete(building)
    place.delete(before)
    try:
        _write(config, place.below(building), example, extras, say)
        if final.exists():
            place.move(final.name, before)
        place.move(building, final.name)
        place.delete(before)
    finally:
        place.delete(building)
    return Artifact.open(str(final))


def _write(
    config: RunConfig,
    storage: Storage,
    example: Callable[[Artifact], dict[str, Any]],
    extras: dict[str, str],
    say: Say,
) -> None:
    data = open_prepared(config)
    checkpoint = load_chosen(config, data)
    system = build(config, data)
    module = made_empty(system.model).eval().requires_grad_(False)
    load_model(module, checkpoint.tensors)
    settled = settle(config, data, system, module, checkpoint.step)
    storage.write("config.toml", to_toml(config).encode())
    for name, file in sources_of(config.system.partition(":")[0]).items():
        storage.write(f"{SOURCE}/{name}", file.read_bytes())
    write_shard(storage, "model.safetensors", [TensorPiece.whole(k, v) for k, v in module.state_dict().items()])
    with torch.inference_mode():
        catalogue = {name: value.contiguous().numpy() for name, value in system.catalogue(module).items()}
    for name, value in catalogue.items():
        write_array(storage, f"catalogue/{name}", value)
    of_records = system.record_tables(system.config)
    for name, value in system.static.items():
        write_array(storage, f"tables/{name}", np.asarray(value[:0] if name in of_records else value))
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "system": config.system,
        "run": config.out,
        "step": checkpoint.step,
        "data": data_of(data.manifest),
        "warning": warning_of(data.manifest),
        "modalities": list(system.modalities or data.modalities),
        "tables": list(system.static),
        "catalogue": list(catalogue),
        "entities": _write_entities(data, system, storage),
        "tasks": {},
        "settled": settled,
        "files": [],
    }
    for task in system.tasks:
        folder = f"tasks/{task.name}"
        manifest["tasks"][task.name] = task.export(
            Exporting(
                system=system, module=module, data=data, storage=storage, folder=folder, serve=config.serve, say=say
            )
        )
    for name, text in extras.items():
        storage.write(name, text.encode())
    storage.write_json("example.json", example(Artifact(Path(storage.root), manifest)))
    # What people edit, as ports, is no part of what must be whole.
    manifest["files"] = [storage.entry(name) for name in _files(Path(storage.root)) if name not in extras]
    storage.write_json(MANIFEST, manifest)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _write_entities(data: Prepared, system: System[Any, Any], storage: Storage) -> dict[str, Any]:
    """Write the members of every entity that requests and answers name; return their counts."""
    named = [column.entity for column in system.columns if column.entity and not column.place]
    named += [name for task in system.tasks for name in task.entities(system)]
    told = {}
    for name in dict.fromkeys(named):
        table = data.entity(name)
        entity = data.entities[name]
        Members.of(entity, table).write(storage, f"entities/{name}")
        told[name] = {"count": len(table), "first": entity.first}
    return told
