"""The view of visits: a row per event, and what came before it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rec.data.config import DataConfig
from rec.data.prepare import prepare
from rec.data.prepared import Prepared
from rec.data.runner import InProcess
from rec.data.schema import Events, Field, RawData, Source, Workplace
from rec.data.views.visits import MOST_EARLIER
from rec.errors import DataError
from rec.strict import Strict
from tests.support.own import own, quiet, write_events

DAY = 86_400


def seen(root: Path, say: Any = quiet, **sections: Any) -> Prepared:
    table = {"root": str(root), "source": "tests.support.clinic:Clinic", "split": {"protocol": "given"}, **sections}
    return prepare(DataConfig.model_validate(table), InProcess(), say, ["visits"]).seen_as("visits")


def by_visit(data: Prepared, split: str) -> dict[int, dict[str, Any]]:
    return {row.pop("visit"): row for row in data.rows(split).to_pylist()}


def test_a_row_holds_an_event_and_the_earlier_ones_of_its_subject(tmp_path: Path) -> None:
    data = seen(tmp_path)
    # Places of the records: p1 0, 1; p2 2, 3; p3 4, 5; p4 6, 7.
    train = by_visit(data, "train")
    assert sorted(train) == [0, 1, 2, 3]
    assert train[3] == {
        "patient": 1, "diagnoses": [0, 1], "symptoms": [0], "medications": [1, 0],
        "earlier": [2], "earlier_diagnoses": [[2]], "earlier_symptoms": [[0]], "earlier_medications": [[2]],
        "gap": [27.0],
    }  # fmt: skip
    assert train[0]["earlier"] == train[0]["earlier_medications"] == train[0]["gap"] == []
    assert train[1]["earlier_symptoms"] == [[]]  # a visit without symptoms keeps its place
    test = by_visit(data, "test")
    assert [test[n]["earlier"] for n in (6, 7)] == [[], [6]]
    assert test[7]["symptoms"] == []


def test_gaps_are_zero_where_times_are_unknown(tmp_path: Path) -> None:
    data = seen(tmp_path, read={"times": False})
    rows = by_visit(data, "train")
    assert {tuple(row["gap"]) for row in rows.values()} == {(), (0.0,)}
    # Without times the order of the input holds: v9 of p2 stands before v8.
    assert data.records(["visit"])["visit"].to_pylist()[2:4] == ["v9", "v8"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_no_earlier_event_is_of_another_subject_or_not_before(tmp_path: Path, split: str) -> None:
    data = seen(tmp_path, source=f"{__name__}:Many", read={"seed": 3})
    records = data.records()
    time, patient = records["time"].to_numpy(), records["patient"].to_numpy()
    rows = by_visit(data, split)
    assert rows
    assert any(row["earlier"] for row in rows.values())
    for place, row in rows.items():
        before = np.flatnonzero((patient == patient[place]) & (np.arange(len(records)) < place))
        assert row["earlier"] == before.tolist()[-MOST_EARLIER:]
        assert (time[row["earlier"]] <= time[place]).all()
        assert row["earlier_codes"] == [records["codes"][one].as_py() for one in row["earlier"]]
        np.testing.assert_allclose(row["gap"], (time[place] - time[row["earlier"]]) / DAY, rtol=1e-6)


def test_where_a_subject_is_of_several_splits_nothing_later_is_known(tmp_path: Path) -> None:
    data = seen(tmp_path, source=f"{__name__}:Many", read={"seed": 4, "mixed": True})
    part = data.records(["part"])["part"].to_numpy()
    patient = data.records(["patient"])["patient"].to_numpy()
    for number, (split, allowed) in enumerate((("train", [0]), ("val", [0, 1]), ("test", [0, 2]))):
        rows = by_visit(data, split)
        assert sorted(rows) == np.flatnonzero(part == number).tolist()
        for place, row in rows.items():
            before = np.flatnonzero(
                (patient == patient[place]) & (np.arange(len(part)) < place) & np.isin(part, allowed)
            )
            assert row["earlier"] == before.tolist()


def test_a_long_history_is_cut_and_told(tmp_path: Path) -> None:
    said: list[str] = []
    data = seen(tmp_path, said.append, source=f"{__name__}:Many", read={"seed": 5, "each": 70})
    last = by_visit(data, "train")[69]
    assert last["earlier"] == list(range(69 - MOST_EARLIER, 69))
    assert any(f"places in a history beyond its last {MOST_EARLIER}" in line for line in said)


def test_records_of_users_and_items_are_no_events(tmp_path: Path) -> None:
    config = own(tmp_path / "out", write_events(tmp_path / "e.csv"), views=["visits"])
    with pytest.raises(DataError, match="needs records that are events"):
        prepare(config, InProcess(), quiet)


def test_a_time_is_a_whole_number_of_every_event(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"clinic: column 'time' \(time\): 1 of 8 values is missing, the first in row 3"
    ):
        seen(tmp_path, source=f"{__name__}:Timeless")
    with pytest.raises(DataError, match=r"clinic: column 'time' \(time\): double, expected int64"):
        seen(tmp_path, source=f"{__name__}:Fractions")


class Timeless(Source):
    Config = Strict

    def open(self, place: Workplace) -> RawData:
        return retimed(pa.array([1, 2, None, 4, 5, 6, 7, 8], pa.int64()))


class Fractions(Source):
    Config = Strict

    def open(self, place: Workplace) -> RawData:
        return retimed(pa.array([0.5] * 8))


def retimed(column: pa.Array) -> RawData:
    from tests.support.clinic import clinic

    raw = clinic()
    assert isinstance(raw.records, Events)
    table = raw.records.table
    return replace(raw, records=replace(raw.records, table=table.set_column(2, "time", column)))


class ManyConfig(Strict):
    seed: int = 0
    each: int = 5
    mixed: bool = False


class Many(Source):
    """Random visits, some at the same time, in a random order."""

    Config = ManyConfig
    config: ManyConfig

    def open(self, place: Workplace) -> RawData:
        rng = np.random.default_rng(self.config.seed)
        patients, each = 30, self.config.each
        rows = []
        for patient in range(patients):
            of = 0 if patient < 20 else 1 if patient < 25 else 2
            for _ in range(each if patient == 0 else int(rng.integers(1, each + 1))):
                codes = [f"c{n}" for n in rng.choice(9, rng.integers(0, 4), replace=False)]
                part = int(rng.integers(3)) if self.config.mixed else of
                time = int(rng.integers(20)) * DAY // 2
                rows.append({"patient": f"p{patient:02d}", "time": time, "codes": codes, "part": part})
        rng.shuffle(rows)
        types = [pa.string(), pa.int64(), pa.list_(pa.string()), pa.int8()]
        schema = pa.schema(list(zip(("patient", "time", "codes", "part"), types, strict=True)))
        return RawData(
            records=Events(
                table=pa.Table.from_pylist(rows, schema=schema), subject=Field("patient", "patient"),
                fields=(Field("codes", "code"),), time="time", part="part",
            )
        )  # fmt: skip
