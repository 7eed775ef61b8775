"""Metadata of films from public files, joined by id where ids agree and by title and year elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from rec.data.tables import ForeignTable, Kind, columns, files, read_whole, schema
from rec.data.tables.files import Location, is_archive, locate, members
from rec.data.tables.text import lines
from rec.errors import DataError

FIELDS = (
    "title", "year", "rated", "released", "genres", "directors", "writers", "actors", "plot", "poster_url",
    "runtime", "country",
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
    "poster_url": ("poster", "poster_url", "poster_path"),
    "country": ("country", "countries"),
}
MELU = ["item", "title", "year", "rated", "released", "genres", "directors", "writers", "actors", "plot", "poster_url"]
YEAR = re.compile(r"\d{4}")
ITEM_FILES = ("u.item", "movies.dat", "movies.csv")


def read_items(uri: str) -> pd.DataFrame:
    """Return the table of items at `uri`: column `item` (raw id as text), every field, then whatever else is there.

    Knows u.item, movies.dat and movies.csv (alone, in their folder or in the official zip), MeLU's eleven-field
    .dat, and any table with a column for the item id. All columns are text, empty where there is none, but pictures,
    which are bytes or None; columns of structs and maps are left out.

    Raises:
        DataError: the file is missing, a row of it is not as it must be, it has no column for the item id or the
            title, or two columns for the same field.
    """
    location = _official(uri)
    name = location.name.lower() if location is not None else ""
    if location is not None and name.endswith("u.item"):
        frame = _u_item(location)
    elif location is not None and name.endswith(".dat"):
        frame = _dat(location)
    else:
        frame = _table(uri if location is None else location.name)
    return named(frame, uri)


def read_ids(uri: str) -> dict[str, str]:
    """Return the map of a file of lines `id original_id`.

    Raises:
        DataError: a line has not two ids, or an id stands for two.
    """
    ids: dict[str, str] = {}
    for row, line in enumerate(lines(locate(uri), "latin-1"), 1):
        parts = re.split(r"[ \t]+", line.strip(" \t"))
        if len(parts) != 2:
            raise DataError(f"{uri}: row {row}: found {line!r}, expected two ids")
        if ids.setdefault(parts[0], parts[1]) != parts[1]:
            raise DataError(f"{uri}: row {row}: id {parts[0]!r} stands for {ids[parts[0]]!r} and {parts[1]!r}")
    return ids


def fill(items: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
    """Return `items` with empty fields filled from `more`.

    Rows join by id where `more` has ids under which at least nine of ten titles agree; else by title and year. Of
    several candidates the one with the longest plot counts.
    """
    items = items.copy()
    by_id = "item" in more and "item" in items and _titles_agree(items, more)
    ours, theirs = (list(frame["item"]) if by_id else _film_keys(frame) for frame in (items, more))
    best: dict[str, int] = {}
    for position in np.argsort(-more["plot"].str.len().to_numpy(), kind="stable"):
        best.setdefault(theirs[position], int(position))
    rows = [best.get(key) for key in ours]
    for field in FIELDS:
        values = more[field].tolist()
        found = ["" if row is None else values[row] for row in rows]
        own = items[field].fillna("").tolist()
        items[field] = pd.Series([a or b for a, b in zip(own, found, strict=True)], index=items.index, dtype="str")
    return items


def film_key(title: str, year: str) -> str:
    """Return what identifies a film across files: articles, case, punctuation and alternative titles removed."""
    text = re.sub(r"\([^)]*\)", " ", title).lower()
    text = re.sub(r"^(.*), (the|a|an|les|la|le|il|das|der|die)\s*$", r"\2 \1", text.strip())
    return re.sub(r"[^a-z0-9]+", "", text) + "/" + year


def _film_keys(frame: pd.DataFrame) -> list[str]:
    return [film_key(t, y) for t, y in zip(frame["title"].fillna(""), frame["year"].fillna(""), strict=True)]


def _titles_agree(items: pd.DataFrame, more: pd.DataFrame) -> bool:
    theirs = dict(zip(more["item"][::-1], more["title"][::-1], strict=True))
    pairs = [
        (title, theirs[i]) for i, title in zip(items["item"], items["title"].fillna(""), strict=True) if i in theirs
    ]
    if not pairs:
        return False
    same = [film_key(a, "") == film_key(b, "") for a, b in pairs]
    return float(np.mean(same)) >= 0.9 or not any(a for a, _ in pairs)


def _official(uri: str) -> Location | None:
    """Return the file that an address names, or the official item file inside; None for a folder of other tables."""
    for name in ITEM_FILES:
        try:
            return locate(files(f"{uri.rstrip('/')}/{name}")[0])
        except DataError:
            continue
    every = files(uri)
    if every != [uri]:
        return None
    if is_archive(uri):
        for member in members(uri):
            if member.rsplit("/", 1)[-1] in ITEM_FILES:
                return locate(f"{uri}/{member}")
    return locate(uri)


def _u_item(location: Location) -> pd.DataFrame:
    """Return u.item: id, title, two dates, an address, and a flag per genre, latin-1."""
    rows = [line.split("|") for line in lines(location, "latin-1")]
    _same_length(location, rows, 5 + len(GENRES_100K), "'|'")
    genres = ["|".join(n for n, flag in zip(GENRES_100K, row[5:], strict=True) if flag == "1") for row in rows]
    texts = {"item": [r[0] for r in rows], "title": [r[1] for r in rows], "released": [r[2] for r in rows]}
    return pd.DataFrame(texts | {"genres": genres}, dtype="str")


def _dat(location: Location) -> pd.DataFrame:
    """Return movies.dat (three fields, latin-1) or MeLU's extra information (eleven fields, utf-8).

    The first and the last "::" of a line of movies.dat count; more inside belong to the title. A title of MeLU ends
    where the year follows.
    """
    rows = [line.split("::") for line in lines(location, "latin-1")]
    melu = sum(len(row) >= len(MELU) for row in rows) * 2 > len(rows)
    if melu:
        rows = [_melu_row(row) for row in rows]
        _same_length(location, rows, len(MELU), "'::'")
        return pd.DataFrame(rows, columns=MELU, dtype="str")
    rows = [[row[0], "::".join(row[1:-1]), row[-1]] if len(row) > 3 else row for row in rows]
    _same_length(location, rows, 3, f"'::' (movies.dat; {len(MELU)} of MeLU)")
    return pd.DataFrame(rows, columns=["item", "title", "genres"], dtype="str")


def _melu_row(row: list[str]) -> list[str]:
    """Return a row whose title is one value, where the year tells which of too many values belong to it."""
    more = len(row) - len(MELU)
    if more <= 0 or YEAR.fullmatch(row[2]) or not YEAR.fullmatch(row[2 + more]):
        return row
    return [row[0], "::".join(row[1 : 2 + more]), *row[2 + more :]]


def _same_length(location: Location, rows: Sequence[Sequence[str]], expected: int, between: str) -> None:
    if not rows:
        raise DataError(f"{location.name}: is empty, expected {expected} fields between {between}")
    for number, row in enumerate(rows, 1):
        if len(row) != expected:
            shown = repr(" ".join(row))[:60]
            raise DataError(
                f"{location.name}: row {number}: found {len(row)} fields ({shown}), "
                f"expected {expected} between {between}"
            )


def _table(uri: str) -> pd.DataFrame:
    """Return the columns of a table that have a name and a text, and pictures as bytes."""
    table = ForeignTable((uri,))
    types = schema(table)
    kinds = {name: _kind(name.lower(), types.field(name).type) for name in columns(table) if name}
    kept = {name: kind for name, kind in kinds.items() if kind is not None}
    read = read_whole(table, {f"column {n}": (name, kind) for n, (name, kind) in enumerate(kept.items())})
    frame = {}
    for number, (name, kind) in enumerate(kept.items()):
        values = read[f"column {number}"].to_pylist()
        texts = kind is not Kind.ANY
        frame[name] = pd.Series([v or "" for v in values] if texts else values, dtype="str" if texts else object)
    return pd.DataFrame(frame)


def _kind(name: str, column: pa.DataType) -> Kind | None:
    """Return what a column is read as, None where it has no text; pictures alone are bytes."""
    types = pa.types
    if any(name in names for names in ALIASES.values()):
        return Kind.ID if name in ALIASES["item"] else Kind.TEXT
    if types.is_binary(column) or types.is_large_binary(column):
        return Kind.ANY
    if types.is_list(column) or types.is_large_list(column):
        return None if types.is_nested(column.value_type) else Kind.TEXT
    return None if types.is_nested(column) else Kind.TEXT


def named(frame: pd.DataFrame, uri: str = "items") -> pd.DataFrame:
    """Return the table under our names, every field present as text, the year taken out of the title."""
    lower = {str(name).lower(): str(name) for name in frame.columns}
    found: dict[str, str] = {}
    for field, names in ALIASES.items():
        fitting = [str(name) for name in frame.columns if str(name).lower() in names]
        if len(fitting) > 1:
            raise DataError(f"{uri}: columns {' and '.join(map(repr, fitting))} are both the {field}, expected one")
        found |= dict.fromkeys(fitting, field)
    flags = [g for g in GENRES_100K if g.lower() in lower]
    frame = frame.rename(columns=found)
    if "genres" not in frame and len(flags) > 5:
        on = frame[[lower[g.lower()] for g in flags]].isin(["1", "true"])
        frame["genres"] = ["|".join(g for g, flag in zip(flags, row, strict=True) if flag) for row in on.to_numpy()]
    if "item" not in frame and "title" not in frame:
        raise DataError(f"{uri}: no column for the item id or the title; the file has {', '.join(lower.values())}")
    for field in FIELDS:
        frame[field] = _text(frame[field], field) if field in frame else pd.Series("", index=frame.index, dtype="str")
    inside = frame["title"].str.extract(r"\((\d{4})\)\s*$")[0].fillna("")
    frame["year"] = frame["year"].where(frame["year"] != "", inside)
    frame["title"] = frame["title"].str.replace(r"[ \t]*\(\d{4}\)\s*$", "", regex=True)
    frame["genres"] = frame["genres"].str.replace(r"\s*[|,]\s*", ", ", regex=True)
    return frame


def _text(column: pd.Series[str], field: str) -> pd.Series[str]:
    """Return a field trimmed, empty where a program wrote that it is missing; whole numbers lose their point."""
    text = column.str.strip(" \t\r\n")
    if field in ("year", "runtime"):
        text = text.str.replace(r"^(\d+)\.0$", r"\1", regex=True)
    missing = {"N/A": ""} if field == "title" else {"N/A": "", "nan": "", "None": ""}
    return text.replace(missing)
