"""Encoded shards joined to tables, shard by shard, so that memory does not grow with their number.

Tables of users start at index 0; those of items hold padding there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rec.data.attributes import Attributes
from rec.data.encode import Recipe
from rec.data.ids import MAX_ID
from rec.data.prepared import write_array
from rec.data.tags import tag_key, tags_of
from rec.errors import DataError
from rec.storage import Storage

if TYPE_CHECKING:
    from rec.data.pairs import Side

ENCODED_COLUMNS = {"tokens": np.int32, "text": np.float32, "image": np.float32, "pixels": np.uint8}


@dataclass(frozen=True, slots=True)
class Tags:
    """What users avoid and items contain, over T tags."""

    names: list[str]
    avoid_UT: np.ndarray
    contains_IT: np.ndarray
    """Row 0 is padding."""


def write_joined(storage: Storage, side_name: str, side: Side, attributes: Attributes, recipe: Recipe) -> None:
    """Write the tables of users or items: vectors, tokens, pixels, attributes, and which modalities are present."""
    padding = 1 if side_name == "item" else 0
    rows = int(side.kept.sum())
    present = {name: np.zeros(rows + padding, dtype=bool) for name in ("text", "image", "attributes")}
    schema = _schema(storage, side.encoded)
    for name, dtype in ENCODED_COLUMNS.items():
        if name not in schema:
            continue
        shape = (recipe.image.size, recipe.image.size, 3) if name == "pixels" and recipe.image else (schema[name],)
        _write_column(storage, f"{side_name}_{name}", side, name, (rows + padding, *shape), np.dtype(dtype), padding)
    for name in ("text", "image"):
        if f"{name}_present" in schema:
            present[name][padding:] = np.concatenate(list(_column(storage, side, f"{name}_present")))
    number, known = attributes.encode(side.frame)
    present["attributes"][padding:] = known
    write_array(storage, f"{side_name}_attributes", np.pad(number, ((padding, 0), (0, 0))))
    write_array(storage, f"{side_name}_present", np.stack(list(present.values()), 1))


def tags_table(users: pd.DataFrame, avoid: str | None, items: pd.DataFrame, contains: str | None) -> Tags:
    """Return what is avoided and contained as tables over all tags that either column names.

    Tags with the same `tag_key` are one, named as it is first written, users' tags before items'.

    Raises:
        DataError: a tag is too long for a request to name.
    """
    lists: list[list[list[str]]] = [
        [tags_of(cell) for cell in frame[column]] if column else [[]] * len(frame)
        for frame, column in ((users, avoid), (items, contains))
    ]
    written: dict[str, str] = {}
    for cells in lists:
        for word in itertools.chain.from_iterable(cells):
            if len(word) > MAX_ID:
                raise DataError(f"tag {word[:40] + '...'!r} has {len(word):,} characters, expected at most {MAX_ID}")
            written.setdefault(tag_key(word), word)
    names = sorted(written.values())
    place = {tag_key(name): n for n, name in enumerate(names)}

    def table(cells: list[list[str]], padding: int) -> np.ndarray:
        found = np.zeros((padding + len(cells), len(names)), dtype=bool)
        for row, words in enumerate(cells):
            found[row + padding, [place[tag_key(word)] for word in words]] = True
        return found

    return Tags(names, table(lists[0], 0), table(lists[1], 1))


def class_codes(column: pd.Series[Any] | None, rows: int) -> np.ndarray:
    """Return each item's class as a number, one for all where there are none, (I + 1,) int32."""
    codes = np.zeros(rows + 1, dtype=np.int32)
    if column is not None:
        codes[1:] = pd.factorize(column.astype(str))[0] + 1
    return codes


def _schema(storage: Storage, names: Sequence[str]) -> dict[str, int]:
    """Return the columns of the encoded shards and how many values each has per row."""
    if not names:
        return {}
    with storage.open(names[0]) as file:
        schema = pq.read_schema(file)
    return {f.name: f.type.list_size if pa.types.is_fixed_size_list(f.type) else 1 for f in schema}


def _column(storage: Storage, side: Side, name: str) -> Iterator[np.ndarray]:
    """Yield the kept rows of one encoded column, shard by shard, (rows,) or (rows, values)."""
    at = 0
    for file_name in side.encoded:
        with storage.open(file_name) as file:
            column = pq.read_table(file, columns=[name])[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
        rows = len(column)
        if pa.types.is_fixed_size_list(column.type):
            values = column.flatten().to_numpy(zero_copy_only=False).reshape(rows, -1)
        else:
            values = column.to_numpy(zero_copy_only=False)
        yield values[side.kept[at : at + rows]]
        at += rows


def _write_column(
    storage: Storage, table: str, side: Side, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], padding: int
) -> None:
    def fill(stream: IO[bytes]) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        empty = np.zeros((padding, *shape[1:]), dtype)
        for part in itertools.chain([empty], _column(storage, side, name)):
            stream.write(np.ascontiguousarray(part, dtype=dtype).tobytes())

    storage.write_with(f"{table}.npy", fill)
