"""Own tables of records, users and items: Parquet or text files in any file system."""

from __future__ import annotations

from typing import Any, Self

from pydantic import field_validator, model_validator

from rec.data.schema import EntityTable, RawData, RecordTable, Source, Workplace
from rec.data.sources.metadata import fill, read_ids, read_items
from rec.data.tables import ForeignTable, TableFormat, require
from rec.errors import ConfigError, DataError
from rec.storage import Storage, absolute, git_blob_sha1
from rec.strict import Strict


class ColumnNames(Strict):
    """Which columns hold what; what is unset is not there."""

    user: str = "user"
    """Id of the user of a record."""
    item: str = "item"
    """Id of the item of a record."""
    time: str | None = None
    """Sorts a user's records; without it the order of rows does. Numbers (s, ms, us, ns) or dates."""
    rating: str | None = None
    """What `data.filter.minimum_rating` is compared with."""
    part: str | None = None
    """For the split "given": 0 or train, 1 or val (valid, validation, dev), 2 or test, in any case."""
    user_id: str | None = None
    """Column of `users` with their ids; unset is named as `user` is."""
    item_id: str | None = None
    """Column of `items` with their ids; unset is named as `item` is."""
    user_text: tuple[str, ...] = ()
    """Columns of `users`, joined to one text."""
    item_text: tuple[str, ...] = ()
    """Columns of `items`, joined to one text."""
    title: str | None = None
    """Column of `items` that people are shown."""
    image: str | None = None
    """Column of `items`: bytes of a picture, or its path or URI; relative paths start at the table's folder."""
    user_attributes: tuple[str, ...] = ()
    """Numbers are scaled, other values become one column each."""
    item_attributes: tuple[str, ...] = ()
    """The same of `items`."""
    user_group: str | None = None
    """Column of `users` by which evaluation tells groups apart."""
    item_class: str | None = None
    """Column of `items`: within a class pictures are swapped to see what a wrong picture does."""
    avoid: str | None = None
    """Column of `users`: what a user must not be shown, a list or words divided by semicolons."""
    contains: str | None = None
    """Column of `items`: what an item contains of that."""

    @field_validator("time", "rating", "part", "user_id", "item_id", "title", "image", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        """Take "" for none, so that an override can switch a column off."""
        return None if value == "" else value

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.user == self.item:
            raise ValueError(f"user and item are both {self.user!r}, expected columns of their own")
        return self


class TablesConfig(Strict):
    """The keys of `[data.read]`."""

    records: tuple[str, ...] = ()
    """Paths of files or folders with a row per event of a user and an item."""
    users: str | None = None
    """Table of users; without it users are their ids alone."""
    items: str | None = None
    """Table of items; without it items are their ids alone."""
    columns: ColumnNames = ColumnNames()
    keep: tuple[str, ...] = ()
    """Further columns of `items` that are kept, such as texts that `[data.text]` names."""
    format: TableFormat = TableFormat()
    """How `records` is written, where it cannot be told ..."""
    users_format: TableFormat = TableFormat()
    """... how `users` is ..."""
    items_format: TableFormat = TableFormat()
    """... and how `items` is."""
    item_ids: str | None = None
    """Lines `id original_id` that map the records' item ids to the ids of `items`."""
    metadata: tuple[str, ...] = ()
    """Tables of films that fill what `items` leaves empty, matched by id or by title and year."""

    @field_validator("records", "keep", "metadata", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        """Take one path or name as a list of it."""
        return (value,) if isinstance(value, str) else value

    sha1: str | None = None
    """Git blob hash that the first file of records must have; unset checks nothing."""


OF_USERS = ("user_id", "user_text", "user_attributes", "user_group", "avoid")
OF_ITEMS = ("item_id", "item_text", "item_attributes", "item_class", "contains", "title", "image")
"""Columns of the tables of users and items."""
TABLE_KEYS = ("users_format", "items_format", "keep", "item_ids", "metadata")
"""Further keys of those tables."""


class Tables(Source):
    """Own tables."""

    Config = TablesConfig
    config: TablesConfig

    def open(self, place: Workplace) -> RawData:
        """Return where the tables are."""
        config, names = self.config, self.config.columns
        if not config.records:
            raise ConfigError("data.read.records: no path given")
        self._refuse_idle()
        paths = tuple(absolute(path) for path in config.records)
        if config.sha1 is not None:
            check_sha1(paths[0], config.sha1)
        records = RecordTable(
            table=ForeignTable(paths, config.format, "data.read.format"), user=names.user, item=names.item,
            time=names.time, rating=names.rating, part=names.part,
        )  # fmt: skip
        self._require(records.table, "user", "item", "time", "rating", "part")
        return RawData(records=records, users=self._users(), items=self._items(place))

    def _refuse_idle(self) -> None:
        """Refuse keys of tables that are not there.

        Raises:
            ConfigError: one is set; what it needs is named.
        """
        config, said = (
            self.config,
            [f"columns.{name}" for name in OF_USERS + OF_ITEMS if getattr(self.config.columns, name)],
        )
        said += [name for name in TABLE_KEYS if getattr(config, name) != TablesConfig.model_fields[name].default]
        films_tell = config.item_ids is not None or bool(config.metadata)
        for key in said:
            of = "users" if key == "users_format" or key.removeprefix("columns.") in OF_USERS else "items"
            if getattr(config, of) is None:
                raise ConfigError(f"data.read.{key}: has no effect without data.read.{of}")
            if of == "items" and films_tell and key not in ("item_ids", "metadata"):
                raise ConfigError(f"data.read.{key}: has no effect beside data.read.item_ids and metadata")

    def _require(self, table: ForeignTable, *keys: str) -> None:
        """Check that a table has the columns that these keys name."""
        wanted: dict[str, str | None] = {}
        for key in keys:
            value = getattr(self.config.columns, key)
            for number, name in enumerate(value if isinstance(value, tuple) else (value,)):
                wanted[f"data.read.columns.{key}" + (f"[{number}]" if isinstance(value, tuple) else "")] = name
        require(table, wanted)

    def _require_id(self, table: ForeignTable, entity: str) -> str:
        """Return the column with the ids of users or items after checking that their table has it."""
        names = self.config.columns
        own: str | None = getattr(names, f"{entity}_id")
        key, other = f"data.read.columns.{entity}", f"data.read.columns.{entity}_id"
        name: str = own or getattr(names, entity)
        require(table, {other if own else f"{key}; {other} names another one of {entity}s": name})
        return name

    def _users(self) -> EntityTable | None:
        config, names = self.config, self.config.columns
        if config.users is None:
            return None
        table = ForeignTable((absolute(config.users),), config.users_format, "data.read.users_format")
        user = self._require_id(table, "user")
        self._require(table, "user_text", "user_attributes", "user_group", "avoid")
        return EntityTable(
            table=table, id=user, text=names.user_text,
            attributes=names.user_attributes, group=names.user_group, tags=names.avoid,
        )  # fmt: skip

    def _items(self, place: Workplace) -> EntityTable | None:
        config, names = self.config, self.config.columns
        if config.items is None:
            return None
        if config.item_ids is not None or config.metadata:
            return films(place, config.items, config.item_ids, config.metadata)
        table = ForeignTable((absolute(config.items),), config.items_format, "data.read.items_format")
        item = self._require_id(table, "item")
        self._require(table, "title", "item_text", "image", "item_attributes", "item_class", "contains")
        require(table, {f"data.read.keep[{number}]": name for number, name in enumerate(config.keep)})
        return EntityTable(
            table=table, id=item, title=names.title,
            text=names.item_text, image=names.image, attributes=names.item_attributes, group=names.item_class,
            tags=names.contains, others=config.keep,
        )  # fmt: skip


def films(place: Workplace, items: str, item_ids: str | None, metadata: tuple[str, ...], **changes: Any) -> EntityTable:
    """Return the table of films from public files, with what more of them know, under the records' ids."""
    items = absolute(items)
    frame = read_items(items)
    if "item" not in frame:
        raise DataError(f"{items}: no column for the item id")
    frame = frame.drop_duplicates("item")
    for uri in metadata:  # which knows films by the same ids as `items`, or by title and year
        frame = fill(frame, read_items(absolute(uri)))
    if item_ids is not None:
        mapping = read_ids(absolute(item_ids))
        theirs = {original: ours for ours, original in mapping.items()}
        frame = frame.assign(original=frame["item"], item=frame["item"].map(theirs)).dropna(subset=["item"])
    table = place.write_frame("items", frame.fillna(""))
    others = tuple(name for name in frame.columns if name not in ("item", "title"))
    return EntityTable(**{"table": table, "id": "item", "title": "title", "others": others, **changes})


def check_sha1(uri: str, wanted: str) -> None:
    """Check the git blob hash of a file.

    Raises:
        DataError: it is another.
    """
    folder, _, name = uri.rpartition("/")
    actual = git_blob_sha1(Storage(folder).read(name))
    if actual != wanted:
        raise DataError(f"{uri}: git blob hash {actual}, expected {wanted}")
