"""The prepared data set: records, entities, features and relations in one folder, and a manifest that is written last.

The folder holds:

    manifest.json                    format, counts, what was read, kept, dropped, the split, config, files, checksums
    data-.../records/part-*.parquet  user (index), item (index), row in the input, time and rating where known, part (0
                                     train, 1 validation, 2 test); sorted by user, a file shares no user with another
    data-.../user.parquet            user (index), id (raw) and what the source knows of users
    data-.../item.parquet            item (index), id (raw), title, metadata, one text per modality
    data-.../NAME.npy                tables by name, row 0 of those of items is padding; opened memory-mapped
    data-.../views/NAME/             rows of the splits as a kind of model trains on them, and tables that go with them

    text                (I + 1, K, M) float32
    text_concatenated   (I + 1, 1, M) the K texts as one
    knowledge_item      (I + 1, M) one text per item and one per user, in one space; rec.data.stages.knowledge
    item_count          (I + 1,) int64 records of training
    item_total          (I + 1,) int64 records
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from rec.config import RunConfig
from rec.data.config import WORK_KEYS, DataConfig
from rec.data.runner import InProcess, Runner
from rec.data.stages.drops import numbered
from rec.data.views.graph import GraphView
from rec.data.views.pairs import PairsView
from rec.data.views.sentences import SentencesView
from rec.data.views.sequences import SequencesView
from rec.data.views.view import FILE_NAME, Making, RowsView, View, read_records
from rec.data.views.view import FOLDER as VIEWS
from rec.data.views.visits import VisitsView
from rec.data.writing import FORMAT, MANIFEST
from rec.errors import ConfigError, DataError
from rec.json_text import json_text
from rec.storage import Storage, absolute
from rec.strict import Strict, is_among, resolve

DIFFERENCES_TOLD = 5
OWN_VIEWS = {view.name: view for view in (SequencesView, PairsView, GraphView, VisitsView, SentencesView, RowsView)}
VIEW = "view.json"


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
    """A prepared data set that is complete and whose manifest has been read, seen as one view has its rows."""

    storage: Storage
    """The folder of its files."""
    manifest: dict[str, Any]
    root: str
    places: tuple[str, ...] = ("",)
    """Folders in which tables are looked for."""

    @classmethod
    def open(cls, root: str, view: str = "") -> Prepared:
        """Return the data set at `root`, with the rows of a view; "" takes those that were written with it.

        Raises:
            DataError: there is none, it is not complete, or another version wrote it.
        """
        base = Storage(root)
        manifest = base.manifest(MANIFEST, FORMAT, "prepared data set", "rec prepare CONFIG")
        found = cls(base.below(manifest["folder"]), manifest, root)
        return found.seen_as(view) if view and not manifest["splits"] else found

    def seen_as(self, view: str) -> Prepared:
        """Return the data set with the rows of a view, made now where that was not done before."""
        make_view(self, view, InProcess(), lambda _: None)
        folder = f"{VIEWS}/{_file_name(view)}"
        told = self.storage.manifest(f"{folder}/{VIEW}", FORMAT, f"view {view!r}", "rec prepare CONFIG")
        manifest = self.manifest | {
            "splits": told["splits"], "view": {"name": view, "dropped": told["dropped"]},
            "files": [*self.manifest["files"], *told["files"]],
        }  # fmt: skip
        return Prepared(self.storage, manifest, self.root, (f"{folder}/", ""))

    def verify(self) -> None:
        """Check every file against its checksum.

        Raises:
            DataError: a file differs.
        """
        for entry in self.manifest["files"]:
            if fault := self.storage.fault(entry):
                raise DataError(f"{fault}; prepare the data set again")

    def identity(self) -> str:
        """Return a hash of what the data set holds: the same, wherever and whenever it was made."""
        told = {key: value for key, value in self.manifest.items() if key not in ("folder", "config")}
        return hashlib.sha256(json_text(told, sort_keys=True).encode()).hexdigest()

    def made_from(self) -> dict[str, Any]:
        """Return `[data]` as it was prepared from, keys that are newer than the data set at their defaults."""
        made: dict[str, Any] = self.manifest["config"]
        try:
            return DataConfig.model_validate(made).model_dump(mode="json", exclude={"views"})
        except (ValidationError, ConfigError):  # rows of its own, or a source that is gone
            return made

    def refuse_differences(self, config: DataConfig) -> None:
        """Check that this data set was made by what a config says of it; keys that it does not set say nothing.

        Raises:
            ConfigError: it was not; the keys are named.
        """
        made, differ = self.made_from(), []
        for key, value in _said(config, "data."):
            found = _below(made, key)
            if not is_among(key.removeprefix("data."), WORK_KEYS) and not _same(found, value):
                differ.append(f"{key}: {value!r}, but {self.root} was prepared with {found!r}")
        if differ:
            more = len(differ) - DIFFERENCES_TOLD
            told = "; ".join([*differ[:DIFFERENCES_TOLD], *([f"and {more} more"] if more > 0 else [])])
            raise ConfigError(f"{told}; prepare again, name another data.root, or leave these keys out")

    @cached_property
    def entities(self) -> dict[str, Entity]:
        """The data set's entities by name."""
        declared = self.manifest["entities"]
        return {name: Entity(name, int(e["count"]), int(e["first"])) for name, e in declared.items()}

    def entity(self, name: str) -> pa.Table:
        """Return the table of an entity, in the order of indices from its first.

        Raises:
            DataError: the data set has no such entity.
        """
        if name not in self.entities:
            known = ", ".join(self.entities)
            raise DataError(f"{self.root}: has no entity {name!r}; there are {known}")
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
            raise DataError(f"{self.root}: no split {split!r}; there are {known or 'none'}") from None

    def split_rows(self, split: str) -> int:
        """Return how many rows a split has."""
        return sum(rows for _, rows in self.files(split))

    def holds(self, name: str) -> bool:
        """Return whether there is a table of this name."""
        return self._file(name) is not None

    def _file(self, name: str) -> str | None:
        return next((f"{p}{name}.npy" for p in self.places if self.storage.exists(f"{p}{name}.npy")), None)

    def array(self, name: str) -> np.ndarray:
        """Return the table `name`.npy, memory-mapped where it lies on a local disk; writing to it changes no file.

        Raises:
            DataError: the data set has no such table; what would make it is told.
        """
        file = self._file(name)
        if file is None:
            raise DataError(f"{self.root}: the data set holds no table {name!r}{hint(name)}")
        if self.storage.is_local:
            loaded: np.ndarray = np.load(self.storage.path(file), mmap_mode="c")
            return loaded
        with self.storage.open(file) as stream:
            return np.asarray(np.lib.format.read_array(stream))

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

    def records(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all records, sorted by user."""
        names = [name for name, _ in self.manifest["records"]]
        return pa.concat_tables([read_records(self.storage, name, columns) for name in names])

    @cached_property
    def records_schema(self) -> pa.Schema:
        """The columns of records."""
        with self.storage.open(self.manifest["records"][0][0]) as file:
            return pq.read_schema(file)

    def rows(self, split: str) -> pa.Table:
        """Return a whole split in memory."""
        return pa.concat_tables([self._parquet(name) for name, _ in self.files(split)])

    def _parquet(self, name: str) -> pa.Table:
        try:
            with self.storage.telling(name), self.storage.open(name) as file:
                return pq.read_table(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{self.storage.uri_of(name)}: cannot be read ({error})") from error


def _said(config: Strict, at: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys that a config sets, with plain values; tables that are no models are one value."""
    plain = config.model_dump(mode="json")
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name in config.model_fields_set:
            yield from _said(value, f"{at}{name}.") if isinstance(value, Strict) else [(f"{at}{name}", plain[name])]


def _below(made: Any, key: str) -> Any:
    for name in key.split(".")[1:]:
        made = made.get(name) if isinstance(made, dict) else None
    return made


def _same(made: Any, said: Any) -> bool:
    """Return whether two values are the same; paths count as the same however they are written."""
    if isinstance(made, str) and isinstance(said, str):
        return made == said or absolute(made) == absolute(said)
    if isinstance(made, list) and isinstance(said, list):
        return len(made) == len(said) and all(map(_same, made, said))
    return bool(made == said)


def open_prepared(config: RunConfig) -> Prepared:
    """Return the data set of a run, with the rows that its system reads."""
    return Prepared.open(config.data.root, resolve(config.system).view)


CONTENT, ENCODED_MODALITIES = "data.content.modalities", ("text", "image")
MAKERS = (
    ("text", "data.text"), ("text_concatenated", "data.text"), ("user_text", "data.encode.text.encoder"),
    ("knowledge_", "data.text.user_items"),
    ("item_text", "data.encode.text.encoder"), ("item_image", "data.encode.image.encoder"),
    ("item_pixels", "data.encode.image.pixels"), ("user_tokens", "data.encode.text.tokenizer"),
    ("item_tokens", "data.encode.text.tokenizer"), ("tokenizer", "data.encode.text.tokenizer"),
    ("user_", "data.encode"), ("item_", "data.encode"), ("feature_", CONTENT), ("graph_", CONTENT),
    ("text_", "data.encode.text.encoder"), ("_text", "data.encode.text.encoder"),
    ("_text_present", "data.encode.text"), ("tokens_", "data.encode.text.tokenizer"),
    ("_tokens", "data.encode.text.tokenizer"), ("_titles", "a source of events whose entities have titles"),
    *((name, "the view sentences") for name in ("sentence_", "rating_scale")),
    ("_pairs", "a source of events that brings this relation"),
    ("_values", "a source of events whose relation has values"),
    *((f"_{part}", "a source of events that brings molecules")
      for part in ("atoms", "atom_owner", "bonds", "bond_features")),
)  # fmt: skip
"""Tables, or how their names begin or end, and the key that makes them."""


def hint(*names: str) -> str:
    """Return in words which keys make some tables, "" where none does."""
    keys: dict[str, list[str]] = {}
    for name in names:
        if key := next((key for start, key in MAKERS if name == start or _starts(name, start)), ""):
            part = name.removeprefix("feature_").removeprefix("graph_").removesuffix("_edge").removesuffix("_weight")
            keys.setdefault(key, []).append(part)
    told = []
    for key, parts in keys.items():
        ours = [part for part in dict.fromkeys(parts) if part in ENCODED_MODALITIES]
        if key != CONTENT:
            told.append(key)
            continue
        if ours:
            encoders = " and ".join(f"data.encode.{part}.encoder" for part in ours)
            told.append(f"{CONTENT} with {' and '.join(map(repr, ours))} (vectors by {encoders}), or by the source")
        if others := [part for part in dict.fromkeys(parts) if part not in ours]:
            told.append(f"a source that brings {' and '.join(map(repr, others))}")
    it = "it is" if len(names) == 1 else "they are"
    return f"; {it} made by {' and by '.join(told)}: prepare again with that, or name what is there in [model]" * any(
        told
    )


def _starts(name: str, start: str) -> bool:
    return (start.endswith("_") and name.startswith(start)) or (start.startswith("_") and name.endswith(start))


def maker_of(view: str) -> type[View]:
    """Return the class of a view.

    Raises:
        ConfigError: there is no such view.
    """
    maker = OWN_VIEWS.get(view) or (resolve(view, "data.views") if ":" in view else None)
    if not (isinstance(maker, type) and issubclass(maker, View)):
        raise ConfigError(f"data.views: no view {view!r}; there are {', '.join(OWN_VIEWS)}, or an import path")
    return maker


def make_view(data: Prepared, view: str, runner: Runner, say: Callable[[str], None]) -> None:
    """Make the rows of a view, unless they are there.

    Raises:
        ConfigError: there is no such view.
        DataError: a split of it has no row.
    """
    base, maker = data.storage, maker_of(view)
    folder = f"{VIEWS}/{_file_name(view)}"
    if base.exists(f"{folder}/{VIEW}"):
        return
    if "records" not in data.manifest:
        raise DataError(f"{data.root}: holds rows of its own and no records that a view {view!r} could be made of")
    making = Making(base, folder, data.manifest, runner)
    maker().make(making)
    told = {"format": FORMAT, "splits": making.splits, "dropped": making.dropped}
    base.write_json(f"{folder}/{VIEW}", told | {"files": base.entries(making.files)})
    rows = ", ".join(f"{sum(n for _, n in files):,} {split}" for split, files in making.splits.items())
    lost = "".join(f"; {numbered(count, reason)}" for reason, count in making.dropped.items())
    say(f"{data.root}: view {view!r}: rows {rows}{lost}")


def _file_name(view: str) -> str:
    name = view.replace(":", ".")
    if not FILE_NAME.fullmatch(name):
        raise ConfigError(f"data.views: {view!r} is no name of a folder, expected letters, digits, '_', '.' and ':'")
    return name
