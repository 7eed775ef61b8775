"""Events of a subject and a counterpart, as reviews of users and items: which of them, and of the two, are kept.

Letters: E events, V members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.config import FilterConfig
from rec.data.schema import Events, Field, RawData
from rec.data.stages.events import refuse_columns, where
from rec.data.stages.records import Records, core, said_before
from rec.data.writing import Draft
from rec.errors import DataError
from rec.storage import Storage

ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What is kept of events and of the tables of their entities."""

    events: Events
    entities: Mapping[str, pa.Table]
    rows: Mapping[str, np.ndarray]
    """The row of each kept member in its table, (V,), by entity."""


def narrowed(raw: RawData, events: Events, keys: FilterConfig, once: bool, dropped: Counter[str]) -> Narrowed:
    """Return the events that are kept, and the members of tables that those name.

    Args:
        raw: What the source brings ...
        events: ... and its events, which have a counterpart.
        keys: What is kept.
        once: Whether a subject and a counterpart meet once at most.
        dropped: Counts of what was dropped, by reason.

    Raises:
        DataError: a column is missing, times are not whole, the counterpart has no members, or no event is left.
    """
    refuse_columns(events)
    sides = (events.subject, _counterpart(events))
    table = events.table
    for side in sides:
        there = pc.is_valid(table[side.name])
        dropped[f"event without {side.name}"] += len(table) - int(pc.sum(there).as_py() or 0)
        table = where(table, there)
    place = _kept(table, sides, events.time, keys, once, dropped)
    table = table if len(place) == len(table) else table.take(pa.array(place))
    entities, rows = dict(raw.entities), {}
    unseen = raw.unseen if keys.unseen is None else keys.unseen
    for side in sides:
        if side.entity in entities and side.entity not in unseen:
            members = entities[side.entity]
            named = pc.is_in(members["id"], value_set=pc.unique(table[side.name].cast(pa.string())))
            rows[side.entity] = np.flatnonzero(named.to_numpy().astype(bool))
            entities[side.entity] = members.filter(named)
    return Narrowed(replace(events, table=table), entities, rows)


def _counterpart(events: Events) -> Field:
    for field in events.fields:
        if field.name == events.counterpart and field.entity:
            return field
    known = ", ".join(field.name for field in events.fields if field.entity)
    raise DataError(f"{events.name}: counterpart {events.counterpart!r}: no field with members; there are {known}")


def _kept(
    table: pa.Table, sides: Sequence[Field], time: str | None, keys: FilterConfig, once: bool, dropped: Counter[str]
) -> np.ndarray:
    """Return the places of the events that are kept, in order."""
    subject, other = (table[side.name].combine_chunks().dictionary_encode().indices.to_numpy() for side in sides)
    when = table[time].to_numpy() if time else np.arange(len(table))
    order = np.lexsort((np.arange(len(table)), when, subject))
    subject, other, when = subject[order].astype(np.int64), other[order].astype(np.int64), when[order]
    repeated = said_before(subject, other, None if once else when)
    dropped["repeated event"] += int(repeated.sum())
    place = order[~repeated]
    if keys.core:
        every = Records(subject[~repeated], other[~repeated], place, {})
        place = core(every, keys.core, dropped).row_E
    return np.sort(place)


def write_features(draft: Draft, raw: RawData, entity: str, found: Narrowed) -> None:
    """Write `feature_NAME`, (V, D) float32, of the members that are kept.

    Raises:
        DataError: a file has not a row of finite numbers for each member of the source's table.
    """
    for name, path in sorted(raw.features.items()):
        folder, _, file = path.rpartition("/")
        members = raw.entities.get(entity)
        try:
            with Storage(folder).open(file) as stream:
                table = np.load(path, mmap_mode="r") if "://" not in path else np.lib.format.read_array(stream)
        except (OSError, ValueError) as error:
            raise DataError(f"features of {name!r}: {path}: cannot be read ({error})") from error
        rows = 0 if members is None else len(members)
        if table.ndim != 2 or len(table) != rows:
            raise DataError(f"{path}: shape {table.shape}, expected a row for each of {rows:,} {entity}s")
        chosen = found.rows.get(entity, np.arange(rows))

        def fill(stream: IO[bytes], table: np.ndarray = table, chosen: np.ndarray = chosen, path: str = path) -> None:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(chosen), table.shape[1])}
            np.lib.format.write_array_header_1_0(stream, header)
            for start in range(0, len(chosen), ROWS_AT_ONCE):
                part = np.asarray(table[chosen[start : start + ROWS_AT_ONCE]], "<f4")
                if not np.isfinite(part).all():
                    row = chosen[start + int(np.flatnonzero(~np.isfinite(part).all(1))[0])] + 1
                    raise DataError(f"{path}: row {row} is not finite, expected numbers")
                stream.write(part.tobytes())

        draft.file(f"feature_{name}.npy", fill)
