"""Events of any shape to a data set: records, entities, relations, molecules, texts as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.config import DataConfig
from rec.data.runner import Runner
from rec.data.schema import PART, TIME, Events, RawData
from rec.data.stages.drops import in_words, of_others, of_records
from rec.data.stages.event_texts import TEXT, EventText, write_event_texts
from rec.data.stages.events import encode
from rec.data.stages.narrow import Narrowed, narrowed, write_features
from rec.data.stages.relations import TITLE, titles, write_counts, write_molecules, write_relations, write_titles
from rec.data.stages.split import Split, split_records
from rec.data.views.view import TRAIN
from rec.data.writing import Draft
from rec.errors import DataError
from rec.sections import plural

ROWS_PER_FILE = 1 << 16
"""Records of a file, about: a file shares no subject with another."""


def write_events(
    config: DataConfig,
    raw: RawData,
    events: Events,
    least: int,
    once: bool,
    draft: Draft,
    runner: Runner,
    say: Callable[[str], None],
) -> tuple[Split, dict[str, Any]]:
    """Write what a source brings whose records are events, and return the split and what the manifest tells.

    Args:
        config: How.
        raw: What the source brings ...
        events: ... and its records.
        least: Events of a subject at least.
        once: Whether a subject and a counterpart meet once at most.
        draft: The data set in the making.
        runner: What runs the parts.
        say: Told what was seen.

    Raises:
        DataError: what is brought does not fit together, or nothing is left of it.
    """
    for name, table in raw.entities.items():
        _refuse_members(name, table)
    read, dropped = len(events.table), Counter[str]()
    if not read:
        raise DataError(f"{events.name}: no event is left; dropped {in_words(raw.dropped)}")
    kept = Narrowed(events, raw.entities, {})
    if events.counterpart:
        kept = narrowed(raw, events, config.filter, once, dropped)
    events = kept.events
    found = encode(events, kept.entities, config.filter, least)
    found.dropped.update(dropped)
    entities, of = found.entities, events.subject.entity
    subjects = len(entities[of]) if of else int(found.records.user_E.max()) + 1
    other = next((field.entity for field in events.fields if field.name == events.counterpart), "")
    others = len(entities[other]) if other else 1
    split = split_records(found.records, subjects, others, config.split, found.dropped, events.name, strangers=True)
    rows = _rows(found.table, split)
    files = draft.tables(_parts(rows, split.records.user_E))
    for name, table in entities.items():
        draft.table(name, table)
    texts = _text_parts(events)
    title_of = _titles_of(entities, texts)
    write_titles(draft, title_of)
    pairs = write_relations(draft, raw.relations, entities, found.dropped)
    sizes = {name: len(table) for name, table in entities.items()}
    write_counts(draft, raw.relations, pairs, _lists(events, rows, split), sizes)
    write_molecules(draft, entities, runner, say)
    write_features(draft, raw, other, kept)
    encoded: dict[str, Any] = {}
    if config.encode is not None:
        trained = np.flatnonzero(split.part_E == TRAIN)
        encoded = write_event_texts(draft, rows, files, trained, texts, entities, title_of, config.encode, runner, say)
    _write_arrays(draft, raw, config.source)
    told = {"records": files, "events": _shape(events, rows), "encoded": encoded, "modalities": []}
    return split, told | _counted(raw, read, len(rows), entities, found.dropped)


def _write_arrays(draft: Draft, raw: RawData, source: str) -> None:
    """Write a source's own arrays.

    Raises:
        DataError: one has the name of a table of the data set.
    """
    for name, array in raw.arrays.items():
        if f"{name}.npy" in draft.files:
            raise DataError(f"{source}: an array {name!r} has the name of a table that is made here")
        draft.array(name, array)


def _rows(table: pa.Table, split: Split) -> pa.Table:
    """Return the events in the order of the split, with time and part."""
    place = pc.index_in(pa.array(split.records.row_E), table["row"].combine_chunks())
    in_order = place.equals(pa.array(np.arange(len(table)), pa.int32()))
    rows = table if in_order else table.take(place)
    if TIME in split.records.columns and TIME not in rows.column_names:
        rows = rows.append_column(TIME, pa.array(split.records.columns[TIME], pa.int64()))
    return rows.append_column(PART, pa.array(split.part_E, pa.int8()))


def _lists(events: Events, rows: pa.Table, split: Split) -> dict[str, list[pa.ListArray]]:
    """Return the lists of members that events of training name, by entity."""
    trained = pa.array(split.part_E == TRAIN)
    found: dict[str, list[pa.ListArray]] = {}
    for field in events.fields:
        if field.entity and pa.types.is_list(rows[field.name].type):
            found.setdefault(field.entity, []).append(pa.concat_arrays(rows[field.name].filter(trained).chunks))
    return found


def _counted(
    raw: RawData, read: int, rows: int, entities: Mapping[str, pa.Table], dropped: Counter[str]
) -> dict[str, Any]:
    """Return what the manifest tells of numbers."""
    sizes = {name: len(table) for name, table in entities.items()}
    dropped = dropped + Counter(raw.dropped)
    counts = {"interactions_read": read + sum(of_records(raw.dropped).values()), "interactions": rows}
    return {
        "counts": counts | {plural(name): size for name, size in sizes.items()},
        "dropped": of_records(dropped),
        "left_out": of_others(dropped),
        "entities": {name: {"count": size, "first": 0} for name, size in sizes.items()},
    }


def has_texts(raw: RawData) -> bool:
    """Return whether a source brings texts of events, or of members of their entities."""
    described = any(TEXT in table.column_names for table in raw.entities.values())
    return isinstance(raw.records, Events) and (bool(raw.records.texts) or described)


def has_written(raw: RawData) -> bool:
    """Return whether records bring texts that people wrote, which a tokenizer of bytes is learned from."""
    return isinstance(raw.records, Events) and TEXT in {field.name for field in raw.records.fields}


def _shape(events: Events, rows: pa.Table) -> dict[str, Any]:
    """Return what the columns of events are, as views read it."""
    return {
        "subject": events.subject.name,
        "entities": {field.name: field.entity for field in (events.subject, *events.fields) if field.entity},
        "time": TIME if events.time and TIME in rows.column_names else "",
    }


def _titles_of(entities: Mapping[str, pa.Table], texts: Mapping[str, Sequence[EventText]]) -> dict[str, list[str]]:
    """Return the titles of entities that have some, or that a text tells of."""
    told_of = {part.entity for parts in texts.values() for part in parts}
    return {name: titles(table) for name, table in entities.items() if TITLE in table.column_names or name in told_of}


def _text_parts(events: Events) -> dict[str, tuple[EventText, ...]]:
    """Return what makes each text of an event.

    Raises:
        DataError: a text names a field that is not there, or has no members.
    """
    entity = {field.name: field.entity for field in events.fields}
    for name, fields in events.texts.items():
        for field in fields:
            if not entity.get(field):
                known = ", ".join(key for key, of in entity.items() if of)
                raise DataError(f"{events.name}: text {name!r}: no field {field!r} with members; there are {known}")
    return {name: tuple(EventText(field, entity[field]) for field in fields) for name, fields in events.texts.items()}


def _refuse_members(name: str, table: pa.Table) -> None:
    """Check that every member of an entity has an id of its own."""
    if "id" not in table.column_names:
        raise DataError(f"entity {name!r}: no column 'id'; there are {', '.join(table.column_names)}")
    counts = Counter(table["id"].to_pylist())
    if None in counts:
        row = table["id"].to_pylist().index(None) + 1
        raise DataError(f"entity {name!r}: row {row} has no id")
    twice = [one for one, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"entity {name!r}: id {twice[0]!r} stands in {counts[twice[0]]} rows, expected one")


def _parts(rows: pa.Table, subject_E: np.ndarray) -> Mapping[str, pa.Table]:
    """Return records in files that share no subject; in the order of the input they are one file."""
    parts: dict[str, pa.Table] = {}
    start = 0
    while start < len(rows):
        end = min(start + ROWS_PER_FILE, len(rows))
        end = int(np.searchsorted(subject_E, subject_E[end - 1], "right"))
        parts[f"records/part-{len(parts):05d}"] = rows.slice(start, end - start)
        start = end
    return parts
