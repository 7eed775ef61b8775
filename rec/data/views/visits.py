"""Visits: a row per event with its subject's earlier events, for models that answer one event from those before it.

Rows, of whatever fields with members the events have (the example is of visits of patients):

    patient              int64, the subject
    visit                int64, the place of the event among the records: the row of tables `text_NAME`
    diagnoses, ...       list<int64>, or int64, members that the event names
    earlier              list<int64>, places of the subject's earlier events, the oldest first
    earlier_diagnoses    list<list<int64>>, members that each of them names, or list<int64>
    gap                  list<float32>, days from each of them to this one, 0 where times are unknown

Of training, earlier events are of training alone; of validation and test, those that are known there and of the split
itself. At most the last `MOST_EARLIER` are kept; that others are left out is told.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from rec.data.views.view import SPLITS, Making, View, is_last, known_parts
from rec.errors import DataError
from rec.seeds import derive, generator

MOST_EARLIER = 64
DAY_S = 86_400
LEFT_OUT = f"place in a history beyond its last {MOST_EARLIER}"
ROWS_AT_ONCE = 1 << 17


class VisitsView(View):
    """Rows: an event, and what came before it."""

    name = "visits"

    def make(self, making: Making) -> None:
        """Write the rows of every split.

        Raises:
            DataError: the records are no events.
        """
        if "events" not in making.manifest:
            raise DataError(f"{making.folder}: needs records that are events (`rec.data.schema.Events`)")
        shape = making.manifest["events"]
        subject, time = shape["subject"], shape["time"]
        fields = [name for name in shape["entities"] if name != subject]
        records = making.records(list(dict.fromkeys([subject, *fields, "part", *([time] if time else [])])))
        part = records["part"].to_numpy()
        hides = making.manifest["split"]["hides_validation"]
        for number, split in enumerate(SPLITS):
            known = np.flatnonzero(np.isin(part, [*known_parts(split, hides), number]))
            table, lost = _rows(records, known, part[known] == number, subject, fields, time)
            if split == "train":  # files hold neighbours; shuffled once, so that subjects of a file differ
                table = table.take(generator(derive(0, "rows"), split).permutation(len(table)))
            making.rows(split, table, making.shard_rows)
            if lost:
                making.dropped[LEFT_OUT] = making.dropped.get(LEFT_OUT, 0) + lost


def _rows(
    records: pa.Table, known: np.ndarray, wanted: np.ndarray, subject: str, fields: list[str], time: str
) -> tuple[pa.Table, int]:
    """Return a row per wanted event, and how many earlier ones were left out; places of known ones rise."""
    user = records[subject].to_numpy()[known]
    begins = np.flatnonzero(np.roll(is_last(user), 1)) if len(user) else np.zeros(0, np.int64)
    first = np.repeat(begins, np.diff(begins, append=len(user)))
    place = np.flatnonzero(wanted)
    before = place - first[place]
    count = np.minimum(before, MOST_EARLIER)
    parts = [
        _some(records, known, place[at : at + ROWS_AT_ONCE], count[at : at + ROWS_AT_ONCE], subject, fields, time)
        for at in range(0, max(len(place), 1), ROWS_AT_ONCE)
    ]
    return pa.concat_tables(parts), int((before - count).sum())


def _some(
    records: pa.Table,
    known: np.ndarray,
    place: np.ndarray,
    count: np.ndarray,
    subject: str,
    fields: list[str],
    time: str,
) -> pa.Table:
    offset = np.concatenate([[0], np.cumsum(count)])
    step = np.arange(offset[-1]) - np.repeat(offset[:-1], count)
    here, earlier = known[place], known[np.repeat(place - count, count) + step]
    columns: dict[str, Any] = {subject: records[subject].take(pa.array(here)).cast(pa.int64())}
    columns["visit"] = pa.array(here, pa.int64())
    for name in fields:
        columns[name] = records[name].take(pa.array(here))
    columns["earlier"] = _listed(offset, pa.array(earlier, pa.int64()))
    for name in fields:
        taken = records[name].take(pa.array(earlier)).combine_chunks()
        columns[f"earlier_{name}"] = _listed(offset, taken)
    gap = np.zeros(len(earlier), np.float32)
    if time:
        seconds = records[time].to_numpy()
        gap = ((np.repeat(seconds[here], count) - seconds[earlier]) / DAY_S).astype(np.float32)
    columns["gap"] = _listed(offset, pa.array(gap))
    return pa.table(columns)


def _listed(offset: np.ndarray, values: Any) -> pa.Array:
    flat = pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) else values
    return pa.ListArray.from_arrays(pa.array(offset.astype(np.int32)), flat)
