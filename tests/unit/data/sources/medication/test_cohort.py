"""The split of patients, and what a data set of visits holds."""

import itertools
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rec.config import without_idle
from rec.data.config import DataConfig
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.data.sources.medication.cohort import parts_of
from rec.errors import ConfigError
from tests.support import wards
from tests.support.own import prepared


def patients(count: int) -> pa.Array:
    """Return the patients of visits: one to three of each, the visits of one apart."""
    return pa.array([f"p{n % count}" for n in range(count)] + [f"p{n}" for n in range(0, count, 3)] * 2)


@pytest.mark.parametrize(
    ("count", "sizes"), [(82, (54, 14, 14)), (826, (550, 138, 138)), (6, (4, 1, 1)), (10, (6, 2, 2))]
)
@pytest.mark.parametrize("order", ["file", "shuffled"])
def test_nobody_is_in_two_parts(count: int, sizes: tuple[int, int, int], order: str) -> None:
    visit = patients(count)
    part = parts_of(visit, order, seed=3)
    of_patient = {patient: set[int]() for patient in visit.to_pylist()}
    for patient, number in zip(visit.to_pylist(), part.tolist(), strict=True):
        of_patient[patient].add(number)
    assert all(len(numbers) == 1 for numbers in of_patient.values())
    found = np.bincount([next(iter(numbers)) for numbers in of_patient.values()], minlength=3)
    assert (found[0], found[2], found[1]) == sizes


def test_the_first_are_for_training_then_for_test_unless_they_are_shuffled() -> None:
    visit = pa.array([f"p{n}" for n in range(6)])
    assert parts_of(visit, "file", 0).tolist() == [0, 0, 0, 0, 2, 1]
    order = list(range(6))
    random.Random(7).shuffle(order)
    wanted = dict(zip(order, [0, 0, 0, 0, 2, 1], strict=True))
    assert parts_of(visit, "shuffled", 7).tolist() == [wanted[n] for n in range(6)]


@pytest.mark.parametrize("protocol", ["given", "subjects"])
def test_a_prepared_cohort_has_no_patient_in_two_splits(tmp_path: Path, protocol: str) -> None:
    wards.eicu(tmp_path / "eicu")
    rows = [{"atc3_i": "B01A", "atc3_j": "C01A"}, {"atc3_i": "B01A", "atc3_j": "A10A"}]
    pairs = wards.write(tmp_path / "pairs.csv", rows)
    read = {"folder": str(tmp_path / "eicu"), **wards.names(tmp_path / "maps"), "symptoms": wards.terms(tmp_path)}
    read |= {"minimum_visits": 1, "interactions": str(pairs)}
    source = {"source": "rec.data.sources.eicu:EICU", "read": read, "split": {"protocol": protocol}}
    data = prepared(tmp_path / "out", source, view="visits")
    of = {split: set(data.rows(split)["patient"].to_pylist()) for split in ("train", "val", "test")}
    assert not any(a & b for a, b in itertools.combinations(of.values(), 2))
    assert sum(map(len, of.values())) == 5
    assert data.manifest["licence"] == "ODbL 1.0"
    assert np.array(data.array("interaction_pairs")).tolist() == [[0, 1]]


def test_interactions_of_other_medications_are_not_taken_for_none(tmp_path: Path) -> None:
    wards.eicu(tmp_path / "eicu")
    pairs = wards.write(tmp_path / "pairs.csv", [{"atc3_i": "Z01Z", "atc3_j": "Z02Z"}])
    read = {"folder": str(tmp_path / "eicu"), **wards.names(tmp_path / "maps"), "interactions": str(pairs)}
    source = {"source": "rec.data.sources.eicu:EICU", "read": read | {"minimum_visits": 1}}
    told: list[str] = []
    keys = {"root": str(tmp_path / "out"), "split": {"protocol": "given"}}
    data = prepare(DataConfig.model_validate(keys | source), InProcess(), told.append, ["visits"])
    assert not any("interaction_pairs" in entry["name"] for entry in data.manifest["files"])
    assert any("pairs.csv: tells nothing of any of the" in line for line in told)
    assert np.array(data.array("medication_molecule_pairs")).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    "keys",
    [
        {"seed": 3}, {"needs_symptom": True}, {"needs_molecule": True}, {"drug_groups": ""}, {"cid_atc": "c"},
        {"treatments": "all", "treatment_words": ["x"]},
    ],
)  # fmt: skip
def test_keys_without_effect_are_refused(keys: dict[str, object], tmp_path: Path) -> None:
    table = {
        "system": "rec.systems.msmrec:MSMRec", "out": str(tmp_path),
        "data": {"root": "data", "source": "rec.data.sources.eicu:EICU", "read": {"folder": "f", **keys}},
    }  # fmt: skip
    with pytest.raises(ConfigError, match=rf"^data.read.{list(keys)[-1]}: has no effect with data.read."):
        without_idle(table, [])
