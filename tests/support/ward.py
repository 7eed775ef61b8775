"""The visits of the set predictor as the package's own view has them: this visit's codes beside those of earlier ones.

A request says each earlier visit by what it holds; where visits lie in the data set is never asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from rec.batch import Column, Columns
from rec.data.views.view import SPLITS, Making, View
from tests.guests import sets_guest
from tests.guests.sets_guest import Prescriber, Visits

TOML = sets_guest.TOML.replace("tests.guests.sets_guest:Prescriber", "tests.support.ward:Ward")
EARLIER = "earlier visit"


class WardRows(View):
    """Rows: a visit with its place, its codes, and for each earlier visit its place, codes and days before."""

    name = "ward"

    def make(self, making: Making) -> None:
        rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        patient, before = -1, []
        for place, event in enumerate(making.records().to_pylist()):
            if event["patient"] != patient:
                patient, before = event["patient"], []
            row = {"patient": patient, "visit": place, "codes": event["codes"], "given": event["given"]}
            row |= {"earlier": [one for one, _ in before], "earlier_codes": [codes for _, codes in before]}
            row["gap"] = [float(place - one) for one, _ in before]
            rows[SPLITS[event["part"]]].append(row)
            before.append((place, event["codes"]))
        one, some = pa.int64(), pa.list_(pa.int64())
        kinds = {"patient": one, "visit": one, "codes": some, "given": some, "earlier": some}
        schema = pa.schema([*kinds.items(), ("earlier_codes", pa.list_(some)), ("gap", pa.list_(pa.float32()))])
        for split, found in rows.items():
            making.rows(split, pa.Table.from_pylist(found, schema=schema), making.shard_rows)


class Ward(Prescriber):
    """The set predictor over these rows."""

    view = "tests.support.ward:WardRows"
    columns = (
        Column("patient", "int64", entity="patient", optional=True),
        Column("visit", "int64", place=True),
        Column("codes", "int64", (-1,), entity="code", optional=True),
        Column("earlier", "int64", (-1,), place=True, along=EARLIER),
        Column("earlier_codes", "int64", (-1, -1), entity="code", optional=True, along=EARLIER),
        Column("gap", "float32", (-1,), optional=True, along=EARLIER, least=0),
        Column("given", "int64", (-1,), label=True, entity="molecule"),
    )

    def collate(self, rows: Columns) -> Visits:
        """Return the batch for these rows."""
        assert all(len(a) == len(b) for a, b in zip(rows["earlier"], rows["earlier_codes"], strict=True))
        assert all(len(a) == len(b) for a, b in zip(rows["earlier"], rows["gap"], strict=True))
        visits = [[*earlier, now] for earlier, now in zip(rows["earlier_codes"], rows["codes"], strict=True)]
        previous = [np.zeros(0, np.int64)] * len(visits)
        return super().collate({**rows, "visits": visits, "previous": previous})
