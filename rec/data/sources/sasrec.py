"""SASRec's files: lines `user item`, sorted by user and in the order of time within one."""

from __future__ import annotations

from typing import ClassVar

from rec.data.schema import RawData, RecordTable, Source, Workplace
from rec.data.sources.movielens import people
from rec.data.sources.tables import check_sha1, films
from rec.data.tables import ForeignTable, TableFormat
from rec.storage import absolute
from rec.strict import Needs, Strict


class SASRecConfig(Strict):
    """The keys of `[data.read]`."""

    NEEDS: ClassVar[Needs] = {"user_ids": {"users": {"not": [None]}}}

    records: tuple[str, ...]
    """Paths of files or folders."""
    items: str | None = None
    """Table of films: movies.dat, u.item, or CSV / Parquet with a column for the item id."""
    item_ids: str | None = None
    """Lines `id original_id` that map the records' item ids to the ids of `items`."""
    users: str | None = None
    """Table of MovieLens users: users.dat or u.user, or what holds it; unset knows users by their ids alone."""
    user_ids: str | None = None
    """Lines `id original_id` that map the records' user ids to the ids of `users`."""
    metadata: tuple[str, ...] = ()
    """More tables of films; later ones fill what earlier ones leave empty."""
    sha1: str | None = None
    """Git blob hash that the first file must have; unset checks nothing."""


class SASRec(Source):
    """Users' items in the order of time."""

    Config = SASRecConfig
    config: SASRecConfig

    def open(self, place: Workplace) -> RawData:
        """Return where the tables are."""
        config = self.config
        paths = tuple(absolute(path) for path in config.records)
        if config.sha1 is not None:
            check_sha1(paths[0], config.sha1)
        items = None if config.items is None else films(place, config.items, config.item_ids, config.metadata)
        table = ForeignTable(paths, TableFormat(delimiter=" ", header=("user", "item")))
        users = None if config.users is None else people(place, config.users, config.user_ids)
        return RawData(records=RecordTable(table=table), users=users, items=items)
