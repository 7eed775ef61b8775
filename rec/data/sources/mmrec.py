"""MMRec's files: numbered users and items, their split, vectors of items by modality and content graphs.

Item numbers from 0 are the rows of every vector file and graph.
"""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse

from rec.data.schema import EntityTable, RawData, RecordTable, Source, Workplace
from rec.data.tables import ForeignTable, Kind, TableFormat, read_whole, require
from rec.data.tables.values import Place
from rec.errors import DataError
from rec.storage import absolute
from rec.strict import Strict


class MMRecColumns(Strict):
    """Names of the columns of an interactions file."""

    user: str = "userID"
    """Number of the user."""
    item: str = "itemID"
    """Number of the item, its row in every vector file and graph."""
    part: str = "x_label"
    """0, 1, 2 or train, val, test; "" where the split is drawn (`[data.split]`)."""


class MMRecConfig(Strict):
    """The keys of `[data.read]`."""

    folder: str = ""
    """Where the files below are, unless they name a place of their own."""
    interactions: str
    """Tab-separated with a header."""
    columns: MMRecColumns = MMRecColumns()
    features: dict[str, str] = {}
    """Vectors of items by modality (image, text, audio, ...), by any name: .npy, (items, width)."""
    graphs: dict[str, str] = {}
    """Content graphs by name, as sparse .npz; a modality with vectors and no graph here gets its nearest neighbours."""

    def path(self, name: str) -> str:
        """Return where a file is."""
        return absolute(os.path.join(self.folder, name))


class MMRec(Source):
    """Interactions of numbered users and items."""

    Config = MMRecConfig
    config: MMRecConfig

    def open(self, place: Workplace) -> RawData:
        """Return where the tables are; items are all rows of vector files and graphs, or else those that are named."""
        config, names = self.config, self.config.columns
        path = config.path(config.interactions)
        table = ForeignTable((path,), TableFormat(delimiter="\t"))
        keys = {"user": names.user, "item": names.item, "part": names.part}
        require(table, {f"data.read.columns.{key}": name for key, name in keys.items()})
        kinds = {"user": Kind.NUMBER, "item": Kind.NUMBER, "part": Kind.PART}
        numbers = read_whole(table, {key: (name, kinds[key]) for key, name in keys.items() if name})
        for key, name in keys.items():
            if name:
                _check(numbers[key], path, name, "0, 1 or 2" if key == "part" else "a whole number from 0")
        items = self._items(place, int(pc.max(numbers["item"]).as_py() or 0), path)
        records = RecordTable(table=table, user=names.user, item=names.item, part=names.part or None)
        return RawData(
            records=records, items=items, unseen=("item",) if items else (),
            features={name: config.path(file) for name, file in config.features.items()},
            graphs={name: config.path(file) for name, file in config.graphs.items()},
        )  # fmt: skip

    def _items(self, place: Workplace, largest: int, path: str) -> EntityTable | None:
        """Return all items that vector files and graphs have rows of; None where there are none."""
        config = self.config
        sizes = {config.path(file): _rows(name, config.path(file)) for name, file in config.features.items()}
        if not sizes:
            sizes = {config.path(file): _rows_of_graph(name, config.path(file)) for name, file in config.graphs.items()}
        for file, rows in sizes.items():
            if rows <= largest:
                raise DataError(
                    f"{file}: {rows:,} rows, expected one for each of {largest + 1:,} items (the largest number in "
                    f"{path} is {largest})"
                )
        if not sizes:
            return None
        ids = pa.array(np.arange(max(sizes.values())).astype(str).tolist(), pa.string())
        return EntityTable(table=place.write("items", pa.table({"id": ids})), id="id")


def _check(column: pa.ChunkedArray, path: str, name: str, expected: str) -> None:
    """Check that a column holds numbers of a kind.

    Raises:
        DataError: it does not; the row is named.
    """
    value = column.to_numpy()
    good = np.isfinite(value) & (value >= 0) & (value == np.round(value))
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        found = None if np.isnan(value[row]) else f"{value[row]:g}"
        raise Place(path, name).error(row, found, expected)


def _rows(name: str, path: str) -> int:
    try:
        return len(np.load(path, mmap_mode="r"))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"data.read.features.{name}: {path}: cannot be read ({error})") from error


def _rows_of_graph(name: str, path: str) -> int:
    try:
        return int(scipy.sparse.load_npz(path).shape[0])
    except (OSError, ValueError) as error:
        raise DataError(f"data.read.graphs.{name}: {path}: cannot be read ({error})") from error
