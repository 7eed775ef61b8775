"""SASRec's files: lines `user item`, sorted by user and in the order of time within one."""

from __future__ import annotations

from rec.data.schema import RawData, RecordTable, Source, Workplace
from rec.data.sources.tables import check_sha1, films
from rec.data.tables import ForeignTable, TableFormat
from rec.storage import absolute
from rec.strict import Strict


class SASRecConfig(Strict):
    """The keys of `[data.read]`."""

    records: tuple[str, ...]
    """Paths of files or folders."""
    items: str | None = None
    """Table of films: movies.dat, u.item, or CSV / Parquet with a column for the item id."""
    item_ids: str | None = None
    """Lines `id original_id` that map the records' item ids to the ids of `items`."""
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
        return RawData(records=RecordTable(table=table), items=items)
