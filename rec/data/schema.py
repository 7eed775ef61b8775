"""What every source becomes: entities, records, features of entities and relations between them.

A source tells where tables are and what their columns hold; reading, filtering, splitting, encoding and writing them is
the core's work, the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa

from rec.data.runner import Runner
from rec.data.tables import ForeignTable, Kind
from rec.data.writing import write_table
from rec.storage import Storage
from rec.strict import Strict

USER, ITEM, TIME, RATING, PART = "user", "item", "time", "rating", "part"
"""Names of a record's columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordTable:
    """What happened: a row per event of a user and an item."""

    table: ForeignTable
    user: str = USER
    item: str = ITEM
    time: str | None = None
    """Sorts a user's records; without it the order of rows does."""
    rating: str | None = None
    part: str | None = None
    """0, 1, 2 or train, val, test, where the source brings the split."""

    @property
    def columns(self) -> dict[str, tuple[str, Kind]]:
        """Our names, theirs, and how they are read."""
        named = {
            USER: (self.user, Kind.ID), ITEM: (self.item, Kind.ID), TIME: (self.time, Kind.TIME),
            RATING: (self.rating, Kind.NUMBER), PART: (self.part, Kind.PART),
        }  # fmt: skip
        return {ours: (theirs, kind) for ours, (theirs, kind) in named.items() if theirs is not None}


@dataclass(frozen=True, slots=True)
class Field:
    """A column of events: what its values are of, and whether they are lists."""

    name: str
    entity: str = ""
    """The entity whose ids it holds, one or a list; "" keeps the values as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What happened to one subject, whatever it is: visits, reviews; in memory, a row per event."""

    table: pa.Table
    subject: Field
    """Whose events they are; splits go by it."""
    fields: tuple[Field, ...]
    time: str | None = None
    """int64; sorts a subject's events. Without it the order of rows does."""
    part: str | None = None
    """0, 1, 2 or train, val, test, where the source brings the split."""
    counterpart: str = ""
    """The field with one member each that an event is of beside its subject, as the item of a review: the filter and
    the split go by both, and of a table of either entity those members are kept that events name. "" where an event is
    of its subject alone."""
    name: str = "events"
    """In messages."""
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Texts of an event by name: the fields whose members' titles make it, in order, joined by "; "."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Pairs of members that have to do with each other: molecules of a medication, medications that interact."""

    table: pa.Table
    """A row per pair; one that names an unknown member is left out and counted."""
    left: Field
    right: Field
    value: str = ""
    """The column that tells what is between the two, as text; "" where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityTable:
    """What is known of users or items: a row each. What the names mean is told beside the keys of `Tables`."""

    table: ForeignTable
    id: str
    title: str | None = None
    text: tuple[str, ...] = ()
    image: str | None = None
    attributes: tuple[str, ...] = ()
    group: str | None = None
    """By which evaluation tells users apart, or items alike."""
    tags: str | None = None
    """What users avoid and items contain."""
    others: tuple[str, ...] = ()
    """Columns that are kept as they are."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns but the picture, the id first."""
        names = [self.id, self.title, self.group, self.tags, *self.attributes, *self.text, *self.others]
        return tuple(dict.fromkeys(name for name in names if name))


@dataclass(frozen=True, slots=True, kw_only=True)
class RawData:
    """What a source brings."""

    records: RecordTable | Events
    users: EntityTable | None = None
    """None where users are their ids alone."""
    items: EntityTable | None = None
    unseen: tuple[str, ...] = ()
    """Entities that are kept though no record names them, unless the config says otherwise."""
    features: Mapping[str, str] = field(default_factory=dict)
    """Vectors of items by modality: .npy files, a row per row of the items' table; of events, per row of the entity
    of their counterpart."""
    graphs: Mapping[str, str] = field(default_factory=dict)
    """Content graphs of items by name: sparse .npz files, (items, items)."""
    entities: Mapping[str, pa.Table] = field(default_factory=dict)
    """Of events: tables of entities with a column `id`, all of whose members are kept (see `Events.counterpart`), in
    this order; the members of others are those that events name, in the order of their ids. `title` is what people call
    a member, without it its id; `text` describes it; `smiles` is its structure, where it is a molecule."""
    relations: Mapping[str, Relation] = field(default_factory=dict)
    """Of events: pairs of members by name."""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further tables by name, a row per member of an entity or as a system wants them."""
    synthetic: bool = False
    """Whether labels are made up."""
    generated: bool = False
    """Whether all of it is: users, items and what they like."""
    licence: str = ""
    """Of the data; kept with the data set and told with every number and artifact that comes from it."""
    private: bool = False
    """Whether records are of people whom nobody else may know: no artifact shows a record as its example."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Records that the source itself leaves out, by reason."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a source may write tables, and what works for it."""

    storage: Storage
    """A folder that is deleted once the data set is whole."""
    runner: Runner
    say: Callable[[str], None]

    def write(self, name: str, table: pa.Table) -> ForeignTable:
        """Write a table and return it as one to be read."""
        write_table(self.storage, f"{name}.parquet", table)
        return ForeignTable((self.storage.uri_of(f"{name}.parquet"),))

    def write_frame(self, name: str, frame: pd.DataFrame) -> ForeignTable:
        """Write a table of pandas, without its index, and return it as one to be read."""
        return self.write(name, pa.Table.from_pandas(frame, preserve_index=False))


class Source(ABC):
    """Reads one layout of data. An outside module's class works like those of `rec.data.sources`."""

    Config: ClassVar[type[Strict]]
    """Its own keys, those of `[data.read]`."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def open(self, place: Workplace) -> RawData:
        """Return where the tables are, written first where the layout is another.

        Raises:
            DataError: something is missing or has another form.
        """
