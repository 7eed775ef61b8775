"""Any MovieLens release as GroupLens publishes it, with posters, texts and tags beside it.

Ratings: u.data (100K), ratings.dat (1M, 10M) or ratings.csv (20M and later); films: u.item, movies.dat or movies.csv;
users: u.user or users.dat; tags: tags.dat or tags.csv. Of a folder, or of the official zip archive.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import fs

from rec.data.schema import EntityTable, RawData, RecordTable, Source, Workplace
from rec.data.sources.metadata import fill, read_ids, read_items
from rec.data.tables import ForeignTable, Kind, TableFormat, files, read_whole
from rec.data.tables.files import members
from rec.errors import DataError
from rec.storage import absolute, open_uri
from rec.strict import Strict

RATINGS: Mapping[str, TableFormat] = {
    "u.data": TableFormat(delimiter="\t", header=("user", "item", "rating", "time")),
    "ratings.dat": TableFormat(delimiter="::", header=("user", "item", "rating", "time")),
    "ratings.csv": TableFormat(delimiter=","),
}
USERS: Mapping[str, TableFormat] = {
    "u.user": TableFormat(delimiter="|", header=("user", "age", "gender", "occupation", "zip"), types={"zip": "text"}),
    "users.dat": TableFormat(
        delimiter="::", header=("user", "gender", "age", "occupation", "zip"), types={"zip": "text"}
    ),
}
TAGS: Mapping[str, TableFormat] = {
    "tags.dat": TableFormat(delimiter="::", header=("user", "item", "tag", "time")),
    "tags.csv": TableFormat(delimiter=","),
}
OCCUPATIONS = (
    "other|academic/educator|artist|clerical/admin|college/grad student|customer service|doctor/health care|"
    "executive/managerial|farmer|homemaker|K-12 student|lawyer|programmer|retired|sales/marketing|scientist|"
    "self-employed|technician/engineer|tradesman/craftsman|unemployed|writer"
).split("|")
"""Of users.dat, by number."""
MOST_TAGS = 20
"""The most frequent ones of a film are part of its text."""
PICTURES = (".jpg", ".jpeg", ".png", ".webp")


class MovieLensConfig(Strict):
    """The keys of `[data.read]`."""

    folder: str
    """Folder or zip archive of the release."""
    posters: str | None = None
    """Folder of posters named by movie id."""
    texts: tuple[str, ...] = ()
    """Tables with overviews, casts and so on: CSV or Parquet with a column for the movie id, or with title and year."""


class MovieLens(Source):
    """Ratings of films."""

    Config = MovieLensConfig
    config: MovieLensConfig

    def open(self, place: Workplace) -> RawData:
        """Return where the tables are."""
        folder = absolute(self.config.folder)
        found = _member(folder, RATINGS)
        if found is None:
            raise DataError(f"{folder}: no MovieLens ratings here; expected one of {', '.join(RATINGS)}")
        path, format = found
        names = ("userId", "movieId") if path.endswith(".csv") else ("user", "item")
        records = RecordTable(
            table=ForeignTable((path,), format), user=names[0], item=names[1], rating="rating",
            time="timestamp" if path.endswith(".csv") else "time",
        )  # fmt: skip
        return RawData(records=records, users=self._users(folder, place), items=self._items(folder, place))

    def _items(self, folder: str, place: Workplace) -> EntityTable:
        config = self.config
        frame = read_items(folder).drop_duplicates("item")
        for uri in config.texts:
            frame = fill(frame, read_items(absolute(uri)))
        frame = frame.fillna("")
        tags = _tags(folder)
        frame["tags"] = frame["item"].map(tags).fillna("") if tags is not None else ""
        parts = [frame["title"], frame["genres"], frame["plot"]]
        text = parts[0] + ". " + parts[1] + ". " + parts[2]
        frame["text"] = np.where(frame["tags"] == "", text, text + " " + frame["tags"])
        frame["class"] = frame["genres"].str.split(r"[ |,]").str[0]
        frame["year"] = frame["year"].where(frame["year"] != "", None)
        frame["image"] = _posters(config.posters, frame["item"])
        wanted = ("item", "title", "text", "class", "year", "image")
        others = tuple(name for name in frame.columns if name not in wanted)
        return EntityTable(
            table=place.write_frame("items", frame), id="item", title="title",
            text=("text",), image="image" if config.posters else None, attributes=("year",), group="class",
            others=others,
        )  # fmt: skip

    def _users(self, folder: str, place: Workplace) -> EntityTable | None:
        found = _member(folder, USERS)
        if found is None:
            return None
        return EntityTable(
            table=place.write_frame("users", _people(*found)), id="user", text=("text",),
            attributes=("age", "gender", "occupation"), group="occupation",
        )  # fmt: skip


def people(place: Workplace, uri: str, user_ids: str | None) -> EntityTable:
    """Return the table of a release's users, of a file, folder or archive, under the records' ids where those differ.

    Args:
        place: Where it is written.
        uri: u.user or users.dat, or what holds it.
        user_ids: Lines `id original_id`; the original id is then kept in the column `original`.

    Raises:
        DataError: there is none.
    """
    found = _member(absolute(uri), USERS)
    if found is None:
        raise DataError(f"{uri}: no table of MovieLens users here; expected {' or '.join(USERS)}")
    frame = _people(*found)
    if found[0].endswith(".dat"):  # whose ages are ranges; the first is told by 1
        frame["text"] = frame["text"].str.replace(r"^A 1 year old (\w+)", r"A \1 under 18", regex=True)
    more: tuple[str, ...] = ()
    if user_ids is not None:
        theirs = {original: ours for ours, original in read_ids(absolute(user_ids)).items()}
        frame = frame.assign(original=frame["user"], user=frame["user"].map(theirs)).dropna(subset=["user"])
        more = ("original",)
    return EntityTable(
        table=place.write_frame("users", frame), id="user", text=("text",),
        attributes=("age", "gender", "occupation"), others=more,
    )  # fmt: skip


def _people(path: str, format: TableFormat) -> pd.DataFrame:
    """Return a release's users with a text about each."""
    wanted = {name: (name, Kind.ID if name == "user" else Kind.ANY) for name in ("user", "age", "gender", "occupation")}
    frame = read_whole(ForeignTable((path,), format), wanted).to_pandas().drop(columns="row")
    if path.endswith(".dat"):
        frame["occupation"] = [OCCUPATIONS[int(number)] for number in frame["occupation"]]
    gender = frame["gender"].map({"F": "woman", "M": "man"})
    frame["text"] = "A " + frame["age"].astype(str) + " year old " + gender + ", " + frame["occupation"]
    return frame


def _member(folder: str, names: Mapping[str, TableFormat]) -> tuple[str, TableFormat] | None:
    """Return the first of some files that a folder or an archive holds, and how it is written."""
    filesystem, path = open_uri(folder)
    kind = filesystem.get_file_info(path).type
    if kind == fs.FileType.NotFound:
        raise DataError(f"{folder}: no such file or folder")
    if kind == fs.FileType.File and not path.endswith(".zip"):
        name = posixpath.basename(path)
        return (folder, names[name]) if name in names else None
    there = {posixpath.basename(uri): uri for uri in _inside(folder, names)}
    return next(((there[name], format) for name, format in names.items() if name in there), None)


def _inside(folder: str, names: Mapping[str, Any]) -> list[str]:
    """Return the files of these names in a folder or an archive."""
    if folder.endswith(".zip"):
        return [f"{folder}/{member}" for member in members(folder)]
    try:
        return files(folder, tuple(names))
    except DataError:
        return []


def _tags(folder: str) -> dict[str, str] | None:
    """Return the most frequent tags of each film, joined to a text."""
    found = _member(folder, TAGS)
    if found is None:
        return None
    path, format = found
    item = "movieId" if path.endswith(".csv") else "item"
    frame = read_whole(ForeignTable((path,), format), {"item": (item, Kind.ID), "tag": ("tag", Kind.TEXT)}).to_pandas()
    frame["tag"] = frame["tag"].fillna("").str.strip().str.lower()
    count = frame[frame["tag"] != ""].value_counts(["item", "tag"]).reset_index()
    count = count.sort_values(["item", "count", "tag"], ascending=[True, False, True])
    first = count.groupby("item").head(MOST_TAGS)
    return {str(item): ", ".join(tags) for item, tags in first.groupby("item")["tag"]}


def _posters(folder: str | None, items: pd.Series[Any]) -> list[str | None]:
    """Return the address of each film's poster, None where there is none."""
    if folder is None:
        return [None] * len(items)
    uri = absolute(folder)
    filesystem, path = open_uri(uri)
    if filesystem.get_file_info(path).type != fs.FileType.Directory:
        raise DataError(f"data.read.posters: {uri}: no such folder")
    inside = filesystem.get_file_info(fs.FileSelector(path))
    names = {info.base_name.rpartition(".")[0]: info.base_name for info in inside if info.base_name.endswith(PICTURES)}
    return [f"{uri.rstrip('/')}/{names[item]}" if item in names else None for item in items]
