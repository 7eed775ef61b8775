"""Metadata of films from public files, joined by id where ids agree and by title and year elsewhere."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from pyarrow import fs

from rec.errors import DataError
from rec.storage import open_uri

FIELDS = (
    "title", "year", "rated", "released", "genres", "directors", "writers", "actors", "plot", "poster", "runtime",
    "country",
)  # fmt: skip
GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|"
    "Mystery|Romance|Sci-Fi|Thriller|War|Western"
).split("|")
ALIASES = {
    "item": ("item", "item_id", "movie_id", "movieid", "movie id"),
    "title": ("title", "movie title", "name"),
    "year": ("year", "release_year"),
    "genres": ("genres", "genre"),
    "plot": ("plot", "overview", "summary", "description"),
    "actors": ("actors", "cast"),
    "directors": ("director", "directors"),
    "writers": ("writers", "writer"),
    "runtime": ("runtime",),
    "rated": ("rated", "certificate"),
    "released": ("released", "release_date", "release date"),
    "poster": ("poster", "poster_url", "poster_path"),
    "country": ("country", "countries"),
}
MELU = ["item", "title", "year", "rated", "released", "genres", "directors", "writers", "actors", "plot", "poster"]
ITEM_FILES = ("u.item", "movies.dat", "movies.csv")


def read_items(uri: str) -> pd.DataFrame:
    """Return the table of items at `uri`: column `item` (raw id as text), then whatever else is there.

    Knows u.item, movies.dat and movies.csv (alone, in their folder or in the official zip), MeLU's eleven-field
    .dat, and any CSV or Parquet with a column for the item id.

    Raises:
        DataError: the file is missing or has no column for the item id.
    """
    name, data = _bytes(uri)
    if name.endswith("u.item"):
        frame = _u_item(data)
    elif name.endswith(".dat"):
        frame = _dat(data, uri)
    elif name.endswith(".parquet"):
        frame = pq.read_table(io.BytesIO(data)).to_pandas()
    else:
        frame = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    return named(frame, uri)


def read_ids(uri: str) -> dict[str, str]:
    """Return the map of a file of lines `id original_id`."""
    _, data = _bytes(uri)
    pairs = [line.split() for line in data.decode().splitlines() if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise DataError(f"{uri}: expected lines of two ids")
    return {pair[0]: pair[1] for pair in pairs}


def fill(items: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
    """Return `items` with empty fields filled from `more`.

    Rows join by id where `more` has ids under which at least nine of ten titles agree; else by title and year. Of
    several candidates the one with the longest plot counts.
    """
    items, more = items.copy(), more.copy()
    by_id = "item" in more and _titles_agree(items, more)
    key = "item" if by_id else "_key"
    if not by_id:
        for frame in (items, more):
            frame["_key"] = [film_key(t, y) for t, y in zip(frame["title"], frame["year"], strict=True)]
    more["_size"] = -more["plot"].str.len()
    best = more.sort_values("_size", kind="stable").drop_duplicates(key).set_index(key)
    for field in FIELDS:
        found = items[key].map(best[field]).fillna("")
        items[field] = np.where(items[field] == "", found, items[field])
    return items.drop(columns="_key", errors="ignore")


def film_key(title: str, year: str) -> str:
    """Return what identifies a film across files: articles, case, punctuation and alternative titles removed."""
    text = re.sub(r"\([^)]*\)", " ", title).lower()
    text = re.sub(r"^(.*), (the|a|an|les|la|le|il|das|der|die)\s*$", r"\2 \1", text.strip())
    return re.sub(r"[^a-z0-9]+", "", text) + "/" + year


def _titles_agree(items: pd.DataFrame, more: pd.DataFrame) -> bool:
    theirs = more.drop_duplicates("item").set_index("item")["title"]
    ours = items.set_index("item")["title"]
    common = ours.index.intersection(theirs.index)
    if not len(common):
        return False
    same = [film_key(a, "") == film_key(b, "") for a, b in zip(ours[common], theirs[common], strict=True)]
    return float(np.mean(same)) >= 0.9 or not (ours != "").any()


def _bytes(uri: str) -> tuple[str, bytes]:
    """Return a file's name and bytes; a folder or zip stands for the official item file inside."""
    filesystem, path = open_uri(uri)
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.Directory:
        for name in ITEM_FILES:
            if filesystem.get_file_info(f"{path}/{name}").type == fs.FileType.File:
                return _bytes(f"{uri.rstrip('/')}/{name}")
    if info.type != fs.FileType.File:
        raise DataError(f"{uri}: no such file" + ("" if info.type == fs.FileType.NotFound else " of items inside"))
    with filesystem.open_input_stream(path) as stream:
        data = stream.read()
    if not path.endswith(".zip"):
        return path.rsplit("/", 1)[-1], data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.namelist():
            if member.rsplit("/", 1)[-1] in ITEM_FILES:
                return member, archive.read(member)
    raise DataError(f"{uri}: archive holds none of {', '.join(ITEM_FILES)}")


def _u_item(data: bytes) -> pd.DataFrame:
    rows = [line.split("|") for line in data.decode("latin-1").splitlines() if line]
    genres = ["|".join(n for n, flag in zip(GENRES_100K, row[5:], strict=True) if flag == "1") for row in rows]
    return pd.DataFrame(
        {
            "item": [r[0] for r in rows],
            "title": [r[1] for r in rows],
            "released": [r[2] for r in rows],
            "genres": genres,
        }
    )


def _dat(data: bytes, uri: str) -> pd.DataFrame:
    """Return movies.dat (three fields, latin-1) or MeLU's extra information (eleven fields, utf-8)."""
    fields = data.split(b"\n", 1)[0].count(b"::") + 1
    if fields not in (3, len(MELU)):
        raise DataError(f"{uri}: {fields} fields between '::', expected 3 (movies.dat) or {len(MELU)} (MeLU)")
    rows = [line.split("::") for line in data.decode("latin-1" if fields == 3 else "utf-8").splitlines() if line]
    frame = pd.DataFrame(rows, columns=["item", "title", "genres"] if fields == 3 else MELU)
    return frame.replace("N/A", "")


def named(frame: pd.DataFrame, uri: str = "items") -> pd.DataFrame:
    """Return the table under our names, every field present as text, the year taken out of the title."""
    lower = {str(c).lower(): c for c in frame.columns}
    found = {}
    for field, names in ALIASES.items():
        for name in names:
            if name in lower:
                found[lower[name]] = field
                break
    flags = [g for g in GENRES_100K if g.lower() in lower]
    frame = frame.rename(columns=found)
    if "genres" not in frame and len(flags) > 5:
        on = frame[[lower[g.lower()] for g in flags]].astype(str) == "1"
        frame["genres"] = ["|".join(g for g, flag in zip(flags, row, strict=True) if flag) for row in on.to_numpy()]
    if "item" not in frame and "title" not in frame:
        raise DataError(f"{uri}: no column for the item id or the title; the file has {', '.join(map(str, lower))}")
    for field in FIELDS:
        frame[field] = _text(frame[field]) if field in frame else ""
    if "item" in frame:
        frame["item"] = _text(frame["item"])
    inside = frame["title"].str.extract(r"\((\d{4})\)\s*$")[0].fillna("")
    frame["year"] = np.where(frame["year"] == "", inside, frame["year"])
    frame["title"] = frame["title"].str.replace(r"\s*\(\d{4}\)\s*$", "", regex=True)
    frame["genres"] = frame["genres"].str.replace(r"\s*[|,]\s*", ", ", regex=True)
    return frame


def _text(column: pd.Series[Any]) -> pd.Series[str]:
    """Return a column as trimmed text; whole floats lose their point, missing values become empty."""
    text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    return text.str.replace(r"^(\d+)\.0$", r"\1", regex=True).replace({"N/A": "", "nan": "", "None": ""})
