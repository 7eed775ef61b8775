"""Reviews for systems that write and rate: NLG4RS sets, Amazon's and Yelp's files, and own tables.

Every source brings events of a user and an item: rating, sentence, the feature that it is about, and what it says of
it. Sets of NLG4RS come with all of that and their splits; of the others features and sentences are found
(`rec.data.reviews.finder`). Raw ids are kept as they are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field as Key

from rec.data.reviews.finder import FindConfig
from rec.data.reviews.found import found_in
from rec.data.reviews.items import known_of
from rec.data.reviews.lines import FieldNames, table_of_lines
from rec.data.reviews.nlg4rs import read_fold, read_reviews
from rec.data.schema import PART, TIME, Events, Field, RawData, Source, Workplace
from rec.data.tables import ForeignTable, TableFormat, TimeForm, require
from rec.errors import ConfigError
from rec.storage import Storage, absolute
from rec.strict import Strict

TEXT, NUMBER, WHOLE, TEXTS = pa.string(), pa.float64(), pa.int64(), pa.list_(pa.string())
AMAZON = (
    FieldNames(
        "Amazon's reviews of 2014 or 2018",
        {"user": ("reviewerID", TEXT), "item": ("asin", TEXT)},
        {"rating": ("overall", NUMBER), "text": ("reviewText", TEXT), "time": ("unixReviewTime", WHOLE)},
        time_unit="s",
    ),
    FieldNames(
        "Amazon's reviews of 2023",
        {"user": ("user_id", TEXT), "item": ("parent_asin", TEXT)},
        {"rating": ("rating", NUMBER), "text": ("text", TEXT), "time": ("timestamp", WHOLE)},
        time_unit="ms",
    ),
)
AMAZON_ITEMS = (
    FieldNames(
        "Amazon's metadata of 2023",
        {"id": ("parent_asin", TEXT)},
        {"title": ("title", TEXT), "text": ("description", TEXTS)},
    ),
    FieldNames(
        "Amazon's metadata of 2014 or 2018", {"id": ("asin", TEXT)},
        {"title": ("title", TEXT), "text": ("description", TEXT)},
    ),
)  # fmt: skip
YELP = FieldNames(
    "Yelp's review.json",
    {"user": ("user_id", TEXT), "item": ("business_id", TEXT), "rating": ("stars", NUMBER)},
    {"text": ("text", TEXT), "time": ("date", TEXT)},
)
YELP_ITEMS = FieldNames(
    "Yelp's business.json", {"id": ("business_id", TEXT), "title": ("name", TEXT)}, {"text": ("categories", TEXT)}
)
YELP_USERS = FieldNames("Yelp's user.json", {"id": ("user_id", TEXT), "title": ("name", TEXT)})
OURS = ("user", "item", "rating", "text", "time")


class NLG4RSConfig(Strict):
    """The keys of `[data.read]`."""

    folder: str
    """Holds reviews.pickle or reviews.jsonl, and folders of index files."""
    fold: str = "1"
    """The folder whose train.index, validation.index and test.index give the split; "" where it is drawn."""


class NLG4RS(Source):
    """Reviews with features and splits, as the sets for PETER, PEPLER and NRT have them."""

    Config = NLG4RSConfig
    config: NLG4RSConfig

    def open(self, place: Workplace) -> RawData:
        """Return the reviews, in the order of the index files where a fold is chosen."""
        folder = Storage(absolute(self.config.folder))
        table, total, dropped = read_reviews(folder)
        position = table["position"].combine_chunks()
        if self.config.fold:
            wanted, part = read_fold(folder, self.config.fold, total)
            at = pc.index_in(pa.array(wanted), value_set=position)
            there = pc.is_valid(at)
            dropped["event that no index file names"] += len(table) - int(pc.sum(there).as_py() or 0)
            table = table.take(at.filter(there)).append_column(PART, pa.array(part).filter(there))
        events = _events(table.drop_columns(["position"]), self.config.folder)
        return RawData(records=events, dropped=dropped)


class LinesConfig(Strict):
    """The keys of `[data.read]`."""

    reviews: tuple[str, ...]
    """Files of a JSON object per line, packed or not, or folders of them."""
    items: str = ""
    """The file of what is known of items, of which title and text are taken; "" where items are their ids alone."""
    vectors: dict[str, str] = {}
    """Vectors of items by name (image, text, ...): .npy, a row per row of `items`."""
    find: FindConfig = FindConfig()
    """How features are found."""


class AmazonReviews(Source):
    """Amazon's reviews of 2014, 2018 or 2023 (McAuley Lab), told apart by their names."""

    Config = LinesConfig
    config: LinesConfig

    def open(self, place: Workplace) -> RawData:
        """Return the reviews that are about a feature."""
        return _of_lines(place, self.config, AMAZON, AMAZON_ITEMS, "Amazon's reviews")


class YelpConfig(LinesConfig):
    """The keys of `[data.read]`: `reviews` is review.json, `items` business.json."""

    users: str = ""
    """user.json, of which names are taken."""


class YelpReviews(Source):
    """Yelp's open data set."""

    Config = YelpConfig
    config: YelpConfig

    def open(self, place: Workplace) -> RawData:
        """Return the reviews that are about a feature."""
        raw = _of_lines(place, self.config, (YELP,), (YELP_ITEMS,), "Yelp's reviews")
        if not self.config.users:
            return raw
        assert isinstance(raw.records, Events)
        table = table_of_lines(place, [absolute(self.config.users)], (YELP_USERS,), "users")
        columns = {"id": ("id",), "title": ("title",)}
        known = known_of(place, raw.records.table["user"], table, columns, {}, "user")
        return RawData(
            records=raw.records, dropped=raw.dropped, features=raw.features,
            entities={**raw.entities, "user": known.table},
        )  # fmt: skip


class ReviewColumns(Strict):
    """Which columns hold what; "" where there is none."""

    user: str = "user"
    """Id of who wrote it."""
    item: str = "item"
    """Id of what it is about."""
    rating: str = "rating"
    """What the user gave."""
    text: str = "text"
    """The review, or the sentence alone where `feature` is set."""
    time: str = ""
    """When it was written."""
    part: str = ""
    """For the split "given": 0 or train, 1 or val (valid, validation, dev), 2 or test, in any case."""
    feature: str = ""
    """What the text is about, where it need not be found ..."""
    opinion: str = ""
    """... and what it says of it."""
    item_id: str = ""
    """Column of `items` with their ids; "" is named as `item` is."""
    title: str = ""
    """Column of `items` that people are shown."""
    item_text: tuple[str, ...] = ()
    """Columns of `items` that describe them, joined to one text."""


class ReviewTablesConfig(Strict):
    """The keys of `[data.read]`."""

    reviews: tuple[str, ...] = Key(min_length=1)
    """Paths of Parquet or text files, or folders of them, with a row per review."""
    columns: ReviewColumns = ReviewColumns()
    format: TableFormat = TableFormat()
    """How `reviews` is written, where it cannot be told ..."""
    items_format: TableFormat = TableFormat()
    """... and how `items` is."""
    items: str = ""
    """Table of items; "" where they are their ids alone."""
    vectors: dict[str, str] = {}
    """Vectors of items by name (image, text, ...): .npy, a row per row of `items`."""
    find: FindConfig = FindConfig()
    """How features are found; without effect where `columns.feature` is set."""


class ReviewTables(Source):
    """Own tables of reviews: Parquet, CSV or other text."""

    Config = ReviewTablesConfig
    config: ReviewTablesConfig

    def open(self, place: Workplace) -> RawData:
        """Return the reviews that are about a feature."""
        config, names = self.config, self.config.columns
        for key in ("item_id", "title", "item_text"):
            if getattr(names, key) and not config.items:
                raise ConfigError(f"data.read.columns.{key}: has no effect without data.read.items")
        if names.opinion and not names.feature:
            raise ConfigError("data.read.columns.opinion: has no effect without data.read.columns.feature")
        if names.feature and config.find != FindConfig():
            raise ConfigError("data.read.find: has no effect beside data.read.columns.feature")
        table = ForeignTable(tuple(absolute(path) for path in config.reviews), config.format, "data.read.format")
        keys = (*OURS, PART, "feature", "opinion")
        columns = {ours: str(getattr(names, ours)) for ours in keys if getattr(names, ours)}
        require(table, {f"data.read.columns.{ours}": theirs for ours, theirs in columns.items()})
        items = None
        if config.items:
            items = ForeignTable((absolute(config.items),), config.items_format, "data.read.items_format")
        described: dict[str, tuple[str, ...]] = {"id": (names.item_id or names.item,)}
        described |= {"title": (names.title,)} if names.title else {}
        described |= {"text": names.item_text} if names.item_text else {}
        if items is not None:
            for ours, theirs in described.items():
                require(items, {f"data.read.columns ({ours} of items)": name for name in theirs})
        return _found(place, table, columns, config.find, items, described, config.vectors, ", ".join(config.reviews))


def _of_lines(
    place: Workplace,
    config: LinesConfig,
    layouts: tuple[FieldNames, ...],
    item_layouts: tuple[FieldNames, ...],
    name: str,
) -> RawData:
    """Return the reviews of files of JSON lines."""
    table = table_of_lines(place, [absolute(path) for path in config.reviews], layouts, "reviews")
    items = None
    if config.items:
        items = table_of_lines(place, [absolute(config.items)], item_layouts, "items")
    columns = {"id": ("id",), "title": ("title",), "text": ("text",)}
    raw = _found(place, table, {ours: ours for ours in OURS}, config.find, items, columns, config.vectors, name)
    place.storage.delete("reviews")
    return raw


def _found(
    place: Workplace,
    table: ForeignTable,
    columns: Mapping[str, str],
    find: FindConfig,
    items: ForeignTable | None,
    described: Mapping[str, tuple[str, ...]],
    vectors: Mapping[str, str],
    name: str,
) -> RawData:
    """Return the reviews of a table that are about a feature, and what is known of their items."""
    if vectors and items is None:
        raise ConfigError("data.read.vectors: has no effect without data.read.items")
    found = found_in(place, table, columns, find)
    events = _events(found.table, name, found.form)
    if items is None:
        return RawData(records=events, dropped=found.dropped)
    known = known_of(place, events.table["item"], items, described, vectors, "item")
    return RawData(
        records=events, dropped=Counter(found.dropped), entities={"item": known.table}, features=known.features
    )


def _events(table: pa.Table, name: str, form: TimeForm | None = None) -> Events:
    """Return reviews as events of a user and an item."""
    if form is not None and form.unit in ("ms", "us", "ns"):  # times of events are seconds
        per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[form.unit]
        seconds = pa.array(np.floor_divide(table[TIME].to_numpy(), per_second), pa.int64())
        table = table.set_column(table.column_names.index(TIME), TIME, seconds)
    table = table.set_column(table.column_names.index("rating"), "rating", table["rating"].cast(pa.float32()))
    return Events(
        table=table,
        subject=Field("user", "user"),
        fields=(Field("item", "item"), *(Field(name) for name in ("rating", "text", "feature", "opinion", "score"))),
        counterpart="item",
        time=TIME if TIME in table.column_names else None,
        part=PART if PART in table.column_names else None,
        name=name,
    )
