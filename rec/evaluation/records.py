"""Records: what evaluation keeps of every example, as an Arrow table that ranks gather and files hold.

A column has one value per example, a vector of fixed width, or a list of any length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from torch import Tensor

from rec.transfer import to_host

Records: TypeAlias = Any
"""A `pyarrow.Table`."""
Ragged = tuple[Any, Tensor | np.ndarray]
"""Values (P,), as tensor, array or Arrow array, and the example of each, (P,); those of one
example keep their order."""


def records_of(columns: Mapping[str, Any], rows: int) -> Records:
    """Return the records of `rows` examples.

    Args:
        columns: Per name a tensor or array (B,) or (B, K), a list of B values, an Arrow array, or `Ragged`.
        rows: B.
    """
    return pa.table({name: _arrow(value, rows) for name, value in _on_host(columns).items()})


def joined(parts: Sequence[Records]) -> Records:
    """Return the records of several parts, one after the other."""
    return pa.concat_tables(parts, promote_options="permissive").combine_chunks() if parts else pa.table({})


def moved(records: Records) -> Records:
    """Return the same records in one piece of Arrow's own memory.

    Columns made of tensors lie between large temporary ones on the heap, and would keep all of it from being used again
    for as long as they are held: 25 MiB for a batch of 256 subjects and 5,000 items.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, records.schema) as writer:
        writer.write_table(records)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def column(records: Records, name: str) -> np.ndarray:
    """Return a column with one value, (B,), or one vector, (B, K), per example."""
    array = _array(records, name)
    if pa.types.is_fixed_size_list(array.type):
        flat = array.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat).reshape(len(array), array.type.list_size)
    return np.asarray(array.to_numpy(zero_copy_only=False))


def ragged(records: Records, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a column of lists, (P,), and the example of each, (P,)."""
    array = _array(records, name)
    length = np.diff(array.offsets.to_numpy())
    return np.asarray(array.flatten().to_numpy(zero_copy_only=False)), np.repeat(np.arange(len(array)), length)


def with_columns(records: Records, columns: Mapping[str, Any]) -> Records:
    """Return the records with more columns, or others in their place."""
    for name, value in _on_host(columns).items():
        array = _arrow(value, len(records))
        place = records.schema.get_field_index(name)
        records = records.append_column(name, array) if place < 0 else records.set_column(place, name, array)
    return records


def _array(records: Records, name: str) -> Any:
    chunked = records[name]
    return (
        chunked.chunk(0)
        if chunked.num_chunks == 1
        else pa.concat_arrays(chunked.chunks or [pa.array([], chunked.type)])
    )


def _on_host(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns whose tensors are on the CPU, for which the host waits once."""
    tensors = {id(part): part for value in columns.values() for part in _parts(value) if isinstance(part, Tensor)}
    moved_to = dict(zip(tensors, to_host(list(tensors.values())), strict=True))
    return {
        name: tuple(moved_to.get(id(part), part) for part in value)
        if isinstance(value, tuple)
        else moved_to.get(id(value), value)
        for name, value in columns.items()
    }


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _numpy(value: Any) -> np.ndarray:
    return value.numpy() if isinstance(value, Tensor) else np.asarray(value)


def _arrow(value: Any, rows: int) -> Any:
    if isinstance(value, tuple):
        flat, owner = value[0], _numpy(value[1])
        if (owner[1:] < owner[:-1]).any():
            order = np.argsort(owner, kind="stable")
            flat, owner = (flat.take(pa.array(order)) if isinstance(flat, pa.Array) else flat[order]), owner[order]
        offset = np.concatenate([[0], np.bincount(owner, minlength=rows).cumsum()]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offset), _arrow(flat, len(owner)))
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return value.combine_chunks() if isinstance(value, pa.ChunkedArray) else value
    if isinstance(value, list):
        return pa.array(value)
    array = _numpy(value)
    if array.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(array).reshape(-1)), array.shape[1])
    return pa.array(array)
