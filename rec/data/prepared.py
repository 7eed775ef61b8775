"""The prepared data set: rows per split in Parquet files, tables, and a manifest that is written last.

manifest.json           format, counts, what was dropped, config, and every file with size and checksum
{train,val,test}/part-00000.parquet ...     one row per user: user, history, target
user.parquet            user (index), id (raw) and what the source knows of users
item.parquet            item (index), id (raw), title, metadata, one text per modality
text.npy                (I + 1, K, M) float32, row 0 is padding; opened memory-mapped
text_concatenated.npy   (I + 1, 1, M) the K texts as one
item_count.npy          (I + 1,) int64 events before the validation target, the data a model may train on
item_total.npy          (I + 1,) int64 events over everything
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from rec.errors import DataError
from rec.storage import Storage
from rec.strict import flat

FORMAT = 1
MANIFEST = "manifest.json"
DIFFERENCES_TOLD = 5


@dataclass(frozen=True, slots=True)
class Entity:
    """A kind of thing that rows name by index: users, items, patients, codes."""

    name: str
    count: int
    first: int
    """Index of the first one: 1 where 0 is padding."""

    @property
    def file(self) -> str:
        """The table with its raw ids, `id`, and what is known of each, in the order of indices."""
        return f"{self.name}.parquet"


@dataclass(frozen=True)
class Prepared:
    """A prepared data set that is complete and whose manifest has been read."""

    storage: Storage
    manifest: dict[str, Any]

    @classmethod
    def open(cls, root: str) -> Prepared:
        """Return the data set at `root`.

        Raises:
            DataError: there is none, it is not complete, or another version wrote it.
        """
        storage = Storage(root)
        return cls(storage, storage.manifest(MANIFEST, FORMAT, "prepared data set", "rec prepare CONFIG"))

    def verify(self) -> None:
        """Check every file against its checksum.

        Raises:
            DataError: a file differs.
        """
        for entry in self.manifest["files"]:
            if fault := self.storage.fault(entry):
                raise DataError(f"{fault}; prepare the data set again")

    def tell_differences(self, config: BaseModel, say: Callable[[str], None]) -> None:
        """Say which keys of `[data]` are set to something else than what this data set was prepared with."""
        made = flat(self.manifest["config"], "data.")
        wanted = flat(config.model_dump(mode="json", exclude_unset=True), "data.")
        differ = [(key, value) for key, value in wanted.items() if key != "data.root" and made.get(key) != value]
        for key, value in differ[:DIFFERENCES_TOLD]:
            found = f"with {key} = {made[key]!r}" if key in made else f"without {key}"
            say(f"note: {self.storage.uri} was prepared {found}, the config says {value!r}")
        if len(differ) > DIFFERENCES_TOLD:
            say(f"note: and so do {len(differ) - DIFFERENCES_TOLD} keys more")

    @cached_property
    def entities(self) -> dict[str, Entity]:
        """The data set's entities by name."""
        counts = self.manifest["counts"]
        known = {
            "user": {"count": counts.get("users", 0), "first": 0},
            "item": {"count": counts.get("items", 0), "first": 1},
        }
        declared = self.manifest.get("entities", known)
        return {name: Entity(name, int(e["count"]), int(e["first"])) for name, e in declared.items()}

    def entity(self, name: str) -> pa.Table:
        """Return the table of an entity, in the order of indices from its first.

        Raises:
            DataError: the data set has no such entity.
        """
        if name not in self.entities:
            known = ", ".join(self.entities)
            raise DataError(f"{self.storage.uri}: has no entity {name!r}; there are {known}")
        if name not in self._entity_tables:
            self._entity_tables[name] = self._parquet(self.entities[name].file)
        return self._entity_tables[name]

    @cached_property
    def _entity_tables(self) -> dict[str, pa.Table]:
        return {}

    @property
    def num_users(self) -> int:
        """Users that are kept."""
        return int(self.manifest["counts"]["users"])

    @property
    def num_items(self) -> int:
        """Items, without padding."""
        return int(self.manifest["counts"]["items"])

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the K texts."""
        return tuple(self.manifest["modalities"])

    def files(self, split: str) -> list[tuple[str, int]]:
        """Return the names and row counts of a split's files, in order."""
        try:
            return [(name, rows) for name, rows in self.manifest["splits"][split]]
        except KeyError:
            known = ", ".join(self.manifest["splits"])
            raise DataError(f"{self.storage.uri}: no split {split!r}; there are {known}") from None

    def split_rows(self, split: str) -> int:
        """Return how many rows a split has."""
        return sum(rows for _, rows in self.files(split))

    def array(self, name: str) -> np.ndarray:
        """Return the table `name`.npy, memory-mapped where it lies on a local disk; writing to it changes no file."""
        path = self.storage.path(f"{name}.npy")
        if not self.storage.exists(f"{name}.npy"):
            raise DataError(
                f"{self.storage.uri}/{name}.npy: the data set holds no such table; prepare it with texts, or again"
            )
        if Path(path).is_file():
            loaded: np.ndarray = np.load(path, mmap_mode="c")
            return loaded
        with self.storage.open(f"{name}.npy") as file:
            return np.asarray(np.lib.format.read_array(file))

    def tables(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return several tables by name."""
        return {name: self.array(name) for name in dict.fromkeys(names)}

    @cached_property
    def items(self) -> pa.Table:
        """The item table, sorted by index from 1."""
        return self.entity("item")

    @cached_property
    def users(self) -> pa.Table:
        """The user table, sorted by index from 0."""
        return self.entity("user")

    def rows(self, split: str) -> pa.Table:
        """Return a whole split in memory."""
        return pa.concat_tables([self._parquet(name) for name, _ in self.files(split)])

    def _parquet(self, name: str) -> pa.Table:
        try:
            with self.storage.open(name) as file:
                return pq.read_table(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{self.storage.uri}/{name}: cannot be read ({error})") from error


def write_prepared(
    root: str,
    *,
    splits: Mapping[str, pa.Table],
    entities: Mapping[str, tuple[pa.Table, int]],
    tables: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    shard_rows: int = 4096,
    manifest: Mapping[str, Any] | None = None,
) -> Prepared:
    """Write a data set and return it; it is complete once its manifest, written last, is there.

    Args:
        root: The folder.
        splits: The rows of `train`, `val` and `test`.
        entities: Per name the table with a column `id`, and the index of its first row.
        tables: Whole-data-set inputs by name.
        config: What it was made from, as plain values.
        shard_rows: Rows per file of a split.
        manifest: Further entries, such as `counts`, `modalities`, `synthetic_labels`.
    """
    storage = Storage(root)
    storage.delete(MANIFEST)
    files: list[str] = []
    parts: dict[str, list[tuple[str, int]]] = {}
    for split, table in splits.items():
        parts[split] = []
        for number, start in enumerate(range(0, max(len(table), 1), shard_rows)):
            part, name = table.slice(start, shard_rows), f"{split}/part-{number:05d}.parquet"
            write_table(storage, name, part)
            parts[split].append((name, len(part)))
            files.append(name)
    for name, (table, _) in entities.items():
        write_table(storage, f"{name}.parquet", table)
        files.append(f"{name}.parquet")
    for name, array in tables.items():
        write_array(storage, name, array)
        files.append(f"{name}.npy")
    told = {name: {"count": len(table), "first": first} for name, (table, first) in entities.items()}
    made: dict[str, Any] = {"format": FORMAT, "counts": {}, "modalities": [], **(manifest or {})}
    made |= {"entities": told, "splits": parts, "config": dict(config), "files": [storage.entry(n) for n in files]}
    storage.write_json(MANIFEST, made)
    return Prepared.open(root)


def write_table(storage: Storage, name: str, table: pa.Table) -> None:
    """Write a Parquet file, whole or not at all."""
    storage.write_with(name, lambda stream: pq.write_table(table, stream, compression="zstd"))


def write_array(storage: Storage, name: str, array: np.ndarray) -> None:
    """Write the table `name`.npy, whole or not at all."""
    storage.write_with(f"{name}.npy", lambda stream: np.lib.format.write_array(stream, np.ascontiguousarray(array)))
