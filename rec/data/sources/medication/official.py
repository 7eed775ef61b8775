"""Official folders of clinical databases: their tables in any case and packing, given files, and the licence."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rec.data.tables import ForeignTable, Kind, columns, require
from rec.data.tables.files import PACKED, PARQUET
from rec.data.tables.reading import Wanted
from rec.errors import ConfigError, DataError
from rec.storage import Storage, absolute

ENDINGS = (*PARQUET, ".csv", ".tsv")
BELOW = ("", "hosp", "icu", "note")
"""Folders in which releases keep their tables."""
LICENCES = {"open database license": "ODbL 1.0", "physionet credentialed": "PhysioNet credentialed"}
"""What stands in the licence file of a release, in lower case, and what we call it."""
UNKNOWN_LICENCE = "not told: no known LICENSE file beside the data; set data.read.licence"


@dataclass(frozen=True, slots=True)
class Official:
    """A table of a release, whose columns are named in lower case here whatever the file does."""

    table: ForeignTable
    names: Mapping[str, str]
    """The columns as the file writes them, by their names in lower case."""

    def wanted(self, columns: Mapping[str, tuple[str, Kind]]) -> Wanted:
        """Return what is read: our names, with the file's own and the kind of each.

        Raises:
            DataError: the file lacks a column.
        """
        found = {ours: (self.names.get(theirs, theirs), kind) for ours, (theirs, kind) in columns.items()}
        require(self.table, {ours: name for ours, (name, _) in found.items()})
        return found


def as_official(uri: str) -> Official:
    """Return a table at a path."""
    table = ForeignTable((absolute(uri),))
    return Official(table, {name.lower(): name for name in columns(table)})


def find(folder: str, name: str, release: str) -> Official:
    """Return the table of this name in the folder of a release.

    Args:
        folder: Where the release was unpacked.
        name: The table, in lower case.
        release: What is to be there and where people get it, for errors.

    Raises:
        DataError: there is none, or more than one.
    """
    storage = Storage(absolute(folder))
    found = [f"{below}/{file}".lstrip("/") for below in BELOW for file in storage.list(below) if _stem(file) == name]
    if not found:
        raise DataError(
            f"{storage.uri}: no table {name!r} here or in {', '.join(filter(None, BELOW))} ({name}.csv, {name}.csv.gz "
            f"or {name}.parquet, in upper or lower case); expected {release}"
        )
    if len(found) > 1:
        raise DataError(f"{storage.uri}: found {' and '.join(found)}, expected one of them: which is to be read?")
    return as_official(storage.uri_of(found[0]))


def given(key: str, path: str, what: str) -> str:
    """Return the path of a file that a key must name.

    Raises:
        ConfigError: the key is not set.
        DataError: there is no such file.
    """
    if not path:
        raise ConfigError(f"data.read.{key}: not set, expected {what}")
    uri = absolute(path)
    folder, _, name = uri.rstrip("/").rpartition("/")
    if not Storage(folder).exists(name):
        raise DataError(f"data.read.{key}: {uri}: no such file, expected {what}")
    return uri


def value_of(uri: str) -> Any:
    """Return what a JSON file holds, or one that is written as Python's own dictionary.

    Raises:
        DataError: it is neither.
    """
    folder, _, name = uri.rpartition("/")
    text = Storage(folder).read(name).decode("utf-8-sig", "replace")
    try:
        return json.loads(text)
    except ValueError as error:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise DataError(f"{uri}: found neither JSON nor Python's notation ({error})") from error


def first_of(names: Iterable[str], official: Official) -> str | None:
    """Return the first of some columns that a table has."""
    return next((name for name in names if name in official.names), None)


def licence_of(folder: str, told: str) -> str:
    """Return the licence of the data: as the config tells it, else by the release's own LICENSE file."""
    if told:
        return told
    storage = Storage(absolute(folder))
    for name in storage.list():
        if name.lower().startswith(("licence", "license")):
            text = storage.read(name).decode("utf-8", "replace").lower()
            for words, licence in LICENCES.items():
                if words in text:
                    return licence
    return UNKNOWN_LICENCE


def _stem(file: str) -> str:
    """Return a table's name by that of its file or folder, "" where it is of no table."""
    name = file.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    for ending in ENDINGS:
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name if "." not in file else ""
