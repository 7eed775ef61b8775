"""Events of any shape to numbers: ids of entities become indices, the split a column.

Letters: E events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.config import FilterConfig
from rec.data.ids import sorted_ids
from rec.data.schema import PART, TIME, Events, Field
from rec.data.stages.drops import in_words
from rec.data.stages.records import Records
from rec.data.tables.values import Place, to_part
from rec.errors import DataError


@dataclass(frozen=True, slots=True)
class EncodedEvents:
    """Events as numbers, in the order of (subject, time, row)."""

    table: pa.Table
    """The fields, without the part."""
    records: Records
    """What the split goes by; items are those of the counterpart from 1, and all 1 without one."""
    entities: dict[str, pa.Table]
    dropped: Counter[str]


def encode(events: Events, known: Mapping[str, pa.Table], keys: FilterConfig, least: int) -> EncodedEvents:
    """Return events as numbers.

    Args:
        events: As the source has them.
        known: Tables of the entities all of whose members are kept.
        keys: What is kept.
        least: Events of a subject at least.

    Raises:
        DataError: a column is missing, too many ids are of nobody, or no event is left.
    """
    table, dropped = events.table, Counter[str]()
    fields = (events.subject, *events.fields)
    refuse_columns(events)
    row = pa.array(np.arange(len(table)), pa.int64())
    there = pc.is_valid(table[events.subject.name])
    dropped[f"event without {events.subject.name}"] += len(table) - int(pc.sum(there).as_py() or 0)
    table, row = where(table, there), row.filter(there.combine_chunks())
    entities = dict(known)
    columns: dict[str, Any] = {}
    for field in fields:
        column = table[field.name].combine_chunks()
        if field.entity:
            entities.setdefault(field.entity, pa.table({"id": _ids(table, fields, field.entity)}))
            column, unknown = indices(column, entities[field.entity]["id"])
            what = "event" if field is events.subject else "id"
            dropped[f"{what} of an unknown {field.entity}"] += unknown
            if unknown > keys.maximum_unknown_share * max(len(column), 1):
                raise DataError(
                    f"{events.name}: column {field.name!r}: {unknown:,} ids name no known {field.entity}; at most "
                    f"{keys.maximum_unknown_share:.1%} may (data.filter.maximum_unknown_share)"
                )
        columns[field.name] = column
    subject = columns[events.subject.name]
    kept = pc.is_valid(subject)
    count = np.bincount(subject.filter(kept).to_numpy(), minlength=1)
    few = kept.to_numpy(zero_copy_only=False) & (count[pc.fill_null(subject, 0).to_numpy()] < least)
    kept = pc.and_(kept, pa.array(~few))
    words = f"subject with fewer than {least} events"
    dropped[f"event of a {words}"], dropped[words] = int(few.sum()), int(((count > 0) & (count < least)).sum())
    if events.part:
        part = to_part(table[events.part].combine_chunks(), Place(events.name, events.part))
        dropped[f"event without {events.part}"] += int(pc.sum(pc.and_(kept, pc.is_null(part))).as_py() or 0)
        kept = pc.and_(kept, pc.is_valid(part))
        table = table.set_column(table.column_names.index(events.part), events.part, part)
    made = where(pa.table(columns | {"row": row}), kept)
    others = {
        ours: table[theirs].filter(kept).to_numpy()
        for ours, theirs in ((TIME, events.time), (PART, events.part))
        if theirs
    }
    if not len(made):
        raise DataError(f"{events.name}: no event is left of {len(events.table):,}; dropped {in_words(dropped)}")
    user, place = made[events.subject.name].to_numpy(), made["row"].to_numpy()
    order = np.lexsort((place, others.get(TIME, place), user))
    del table, columns, column
    item = made[events.counterpart].to_numpy() + 1 if events.counterpart else np.ones(len(user), np.int64)
    records = Records(user, item.astype(np.int32), place, others).take(order)
    return EncodedEvents(made.take(pa.array(order)), records, entities, dropped)


def where(table: pa.Table, mask: pa.Array) -> pa.Table:
    """Return the rows of a mask without nulls; the table itself, without a copy, where that is all of them."""
    return table if pc.all(mask).as_py() else table.filter(mask)


def refuse_columns(events: Events) -> None:
    """Check that a table has the columns that are named, and times that are whole.

    Raises:
        DataError: it has not.
    """
    table = events.table
    fields = (events.subject, *events.fields)
    for name in [f.name for f in fields] + [n for n in (events.time, events.part) if n]:
        if name not in table.column_names:
            raise DataError(f"{events.name}: no column {name!r}; there are {', '.join(table.column_names)}")
    if events.time:
        _refuse_times(events, table[events.time])


def _refuse_times(events: Events, column: pa.ChunkedArray) -> None:
    where = f"{events.name}: column {events.time!r} (time)"
    if column.type != pa.int64():
        raise DataError(f"{where}: {column.type}, expected int64")
    if column.null_count:
        row = int(np.flatnonzero(pc.is_null(column).to_numpy())[0]) + 1
        raise DataError(
            f"{where}: {column.null_count:,} of {len(column):,} values is missing, the first in row {row:,}"
        )


def _ids(table: pa.Table, fields: tuple[Field, ...], entity: str) -> list[str]:
    """Return the ids of an entity that any field names, in their order."""
    found: set[str] = set()
    for field in fields:
        if field.entity == entity:
            found |= {
                str(value)
                for value in pc.unique(_flat(table[field.name].combine_chunks())).to_pylist()
                if value is not None
            }
    return sorted_ids(list(found))


def _flat(column: pa.Array) -> pa.Array:
    while pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = column.flatten()
    return column


def indices(column: pa.Array, ids: pa.ChunkedArray) -> tuple[pa.Array, int]:
    """Return ids, or lists of them, as their places, and how many are unknown: null, or left out of lists."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        nested, unknown = indices(column.flatten(), ids)
        length = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        row = np.repeat(np.arange(len(length)), length)
        there = pc.is_valid(nested).to_numpy(zero_copy_only=False)
        count = np.bincount(row[there], minlength=len(length))
        offset = pa.array(np.concatenate([[0], np.cumsum(count)]).astype(np.int32))
        return pa.ListArray.from_arrays(offset, nested.filter(pa.array(there))), unknown
    place = pc.index_in(column.cast(pa.string()), value_set=pa.array(ids.to_pylist(), pa.string())).cast(pa.int64())
    return place, place.null_count
