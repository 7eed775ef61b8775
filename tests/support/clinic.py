"""A small data set of visits with all that events may bring, for tests."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from rec.data.schema import Events, Field, RawData, Relation, Source, Workplace
from rec.strict import Strict

NAMES = pa.list_(pa.string())
DAY = 86_400
VISITS = (
    # patient, visit, day, diagnoses, symptoms, medications, part
    ("p2", "v9", 30, ["d1", "d2"], ["s1"], ["N02B", "A10A"], 0),
    ("p1", "v1", 0, ["d1"], [], ["N02B"], 0),
    ("p1", "v2", 10, ["d2", "d3"], ["s2", "s1"], ["A10A"], 0),
    ("p2", "v8", 3, ["d3"], ["s1"], ["V03X"], 0),
    ("p3", "v3", 5, ["d1"], ["s1"], ["N02B"], 1),
    ("p4", "v5", 9, ["d2"], None, ["A10A", "N02B"], 2),
    ("p4", "v4", 8, ["d4"], ["s2"], ["N02B"], 2),
    ("p3", "v6", 5, [], ["s2"], [], 1),
)


class ClinicConfig(Strict):
    """The keys of `[data.read]`."""

    texts: bool = True
    times: bool = True


class Clinic(Source):
    """Eight visits of four patients."""

    Config = ClinicConfig
    config: ClinicConfig

    def open(self, place: Workplace) -> RawData:
        return clinic(texts=self.config.texts, times=self.config.times)


def clinic(*, texts: bool = True, times: bool = True, **changes: Any) -> RawData:
    """Return the visits as a source brings them."""
    names = ("patient", "visit", "time", "diagnoses", "symptoms", "medications", "part")
    rows = [dict(zip(names, (*row[:2], row[2] * DAY, *row[3:]), strict=True)) for row in VISITS]
    types = [pa.string(), pa.string(), pa.int64(), NAMES, NAMES, NAMES, pa.int8()]
    told: dict[str, tuple[str, ...]] = {
        "diagnoses": ("diagnoses",), "symptoms": ("symptoms",), "all": ("diagnoses", "symptoms")
    }  # fmt: skip
    events = Events(
        table=pa.Table.from_pylist(rows, schema=pa.schema(list(zip(names, types, strict=True)))),
        subject=Field("patient", "patient"),
        fields=(
            Field("visit"), Field("diagnoses", "diagnosis"), Field("symptoms", "symptom"),
            Field("medications", "medication"),
        ),
        time="time" if times else None,
        part="part",
        texts=told if texts else {},
        name="clinic",
    )  # fmt: skip
    raw: dict[str, Any] = {
        "records": events,
        "entities": {
            "diagnosis": pa.table(
                {"id": ["d1", "d2", "d3", "d4"], "title": ["fever", "high blood pressure", None, " "]}
            ),
            "medication": pa.table(
                {
                    "id": ["A10A", "N02B", "V03X"],
                    "title": ["insulins", "analgesics", None],
                    **({"text": ["lowers glucose in blood", "", "an antidote"]} if texts else {}),
                }
            ),
            "molecule": pa.table({"id": ["m1", "m2", "m3", "m4"], "smiles": ["CC(=O)O", "[Na+]", "no molecule", None]}),
        },
        "relations": {
            "medication_molecule": Relation(
                table=pa.table({"medication": ["N02B", "N02B", "V03X", "V03X"], "molecule": ["m1", "m2", "m4", "m9"]}),
                left=Field("medication", "medication"),
                right=Field("molecule", "molecule"),
            ),
            "interaction": Relation(
                table=pa.table(
                    {"a": ["N02B", "V03X", "X99X", "N02B"], "b": ["A10A", "N02B", "N02B", "A10A"],
                     "severity": ["major", None, "minor", "minor"]}
                ),
                left=Field("a", "medication"),
                right=Field("b", "medication"),
                value="severity",
            ),
        },
        "licence": "Test Licence 1.0",
    }  # fmt: skip
    return RawData(**(raw | changes))
