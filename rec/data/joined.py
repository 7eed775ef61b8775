"""Encoded shards joined to tables, shard by shard, so that memory does not grow with their number.

Tables of users start at index 0; those of items hold padding there.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rec.data.attributes import Attributes
from rec.data.encode import Recipe
from rec.data.ids import MAX_ID
from rec.data.stages.entities import Side
from rec.data.tags import tag_key, tags_of
from rec.data.writing import Draft
from rec.errors import DataError
from rec.storage import Storage

ROWS_AT_ONCE = 4096
ENCODED_COLUMNS = {"tokens": np.int32, "text": np.float32, "image": np.float32, "pixels": np.uint8}


@dataclass(frozen=True, slots=True)
class Tags:
    """What users avoid and items contain, over T tags."""

    names: list[str]
    avoid_UT: np.ndarray
    contains_IT: np.ndarray
    """Row 0 is padding."""


def write_joined(draft: Draft, side: Side, frame: pd.DataFrame, attributes: Attributes, recipe: Recipe) -> None:
    """Write the tables of users or items: vectors, tokens, pixels, attributes, and which modalities are present."""
    rows = side.first + len(side.ids)
    present = {name: np.zeros(rows, dtype=bool) for name in ("text", "image", "attributes")}
    schema = _schema(draft.root, side.encoded)
    for name, dtype in ENCODED_COLUMNS.items():
        if name not in schema:
            continue
        shape = (recipe.image.size, recipe.image.size, 3) if name == "pixels" and recipe.image else (schema[name],)
        padding = recipe.padding if name == "tokens" else 0
        _write_column(draft, side, name, (rows, *shape), np.dtype(dtype), padding)
    for name in ("text", "image"):
        if f"{name}_present" in schema:
            present[name][side.first :] = _gathered(draft.root, side, f"{name}_present")
    number, known = attributes.encode(frame)
    present["attributes"][side.first :] = known
    draft.array(f"{side.name}_attributes", np.pad(number, ((side.first, 0), (0, 0))))
    draft.array(f"{side.name}_present", np.stack(list(present.values()), 1))


def pictures(root: Storage, side: Side) -> pa.ChunkedArray:
    """Return the small pictures of users or items that encoding made, in the order of their indices."""
    parts = []
    for name in side.encoded:
        with root.open(name) as file:
            parts.append(pq.read_table(file, columns=["thumbnail"])["thumbnail"])
    joined = pa.chunked_array([chunk for column in parts for chunk in column.chunks], pa.binary())
    return joined.take(pa.array(side.row_U, mask=side.row_U < 0))


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


def _column(root: Storage, side: Side, name: str) -> Iterator[np.ndarray]:
    """Yield one encoded column, shard by shard, (rows,) or (rows, values)."""
    for file_name in side.encoded:
        with root.open(file_name) as file:
            column = pq.read_table(file, columns=[name])[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
        if pa.types.is_fixed_size_list(column.type):
            yield column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        else:
            yield column.to_numpy(zero_copy_only=False)


def _gathered(root: Storage, side: Side, name: str) -> np.ndarray:
    """Return a small column in the order of indices; 0 for those who are in no table."""
    values = np.concatenate(list(_column(root, side, name)))
    return np.where(side.row_U < 0, 0, values[np.maximum(side.row_U, 0)])


def _ordered(root: Storage, side: Side, name: str, missing: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of a column in the order of indices, in blocks: streamed, where that is the table's order.

    In another order they are gathered from a scratch file, so that memory does not grow with the table.
    """
    if len(side.row_U) and (side.row_U[0] >= 0) and (np.diff(side.row_U) > 0).all():
        at = 0
        for values in _column(root, side, name):
            low, high = np.searchsorted(side.row_U, [at, at + len(values)])
            yield values[side.row_U[low:high] - at]
            at += len(values)
        return
    with tempfile.TemporaryFile() as scratch:
        rows, width = 0, missing.size
        for values in _column(root, side, name):
            scratch.write(np.ascontiguousarray(values, missing.dtype).tobytes())
            rows += len(values)
        scratch.flush()
        table = np.memmap(scratch, missing.dtype, "r", shape=(max(rows, 1), width)) if rows else missing[None]
        for start in range(0, len(side.row_U), ROWS_AT_ONCE):
            row = side.row_U[start : start + ROWS_AT_ONCE]
            yield np.where((row < 0)[:, None], missing, table[np.maximum(row, 0)])


def _write_column(
    draft: Draft, side: Side, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], padding: int
) -> None:
    missing = np.full(int(np.prod(shape[1:])), padding, dtype)

    def fill(stream: IO[bytes]) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        empty = np.zeros((side.first, missing.size), dtype)
        for part in itertools.chain([empty], _ordered(draft.root, side, name, missing)):
            stream.write(np.ascontiguousarray(part, dtype=dtype).tobytes())

    draft.file(f"{side.name}_{name}.npy", fill)
