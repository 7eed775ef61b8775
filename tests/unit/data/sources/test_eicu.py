"""eICU in its official layout, from rows made by hand."""

from pathlib import Path
from typing import Any

import pytest

from rec.data.sources.eicu import EICU
from rec.errors import ConfigError
from tests.support import wards


def eicu(folder: Path, **keys: Any) -> Any:
    read = {"folder": str(folder / "eicu"), **wards.names(folder / "maps"), "symptoms": wards.terms(folder)}
    return wards.opened(EICU, folder, **(read | keys))


@pytest.mark.parametrize("upper", [False, True])
def test_stays_have_their_codes_in_order(tmp_path: Path, upper: bool) -> None:
    wards.eicu(tmp_path / "eicu", upper)
    raw = eicu(tmp_path)
    table = raw.records.table
    assert table["visit"].to_pylist() == ["2", "1", "3", "4", "5", "6", "7"]
    assert table["patient"].to_pylist() == ["901"] * 3 + ["904", "905", "906", "907"]
    assert "time" not in table.column_names
    assert wards.column(raw, "diagnoses")["1"] == ["pulmonary|cough", "cardiovascular|chest pain / ASHD"]
    assert raw.entities["diagnosis"]["title"].to_pylist()[0] == "cardiovascular, chest pain / ASHD"
    assert wards.column(raw, "symptoms")["1"] == ["cough", "chest pain", "fever"]
    assert wards.column(raw, "medications")["1"] == ["B01A", "C01A"]
    assert wards.column(raw, "medications")["2"] == ["B01A"]
    assert raw.licence == "ODbL 1.0"
    told = {
        "order with a cancellation": 1, "order without name or HICL number": 1, "order whose drug has no ATC code": 1,
        "treatment naming a drug": 8, "event without procedures": 1,
    }  # fmt: skip
    assert raw.dropped == told


def test_treatments_that_name_drugs_stay_where_they_are_asked_for(tmp_path: Path) -> None:
    wards.eicu(tmp_path / "eicu")
    clean = {"pulmonary|chest x-ray", "renal|lasix drip"}
    found = {
        "filtered": set(eicu(tmp_path).entities["procedure"]["id"].to_pylist()),
        "all": set(eicu(tmp_path, treatments="all").entities["procedure"]["id"].to_pylist()),
        "more": set(eicu(tmp_path, treatment_words=["Lasix"]).entities["procedure"]["id"].to_pylist()),
    }
    assert found["filtered"] == clean
    assert found["all"] == clean | {"cardiovascular|antiplatelet agent|aspirin"}
    assert found["more"] == {"pulmonary|chest x-ray"}
    with pytest.raises(ConfigError, match=r'data.read.treatments: "filtered" takes names of ATC substances'):
        eicu(tmp_path, drugs="")


def test_a_visit_may_be_a_hospital_stay_with_all_its_units(tmp_path: Path) -> None:
    wards.eicu(tmp_path / "eicu")
    raw = eicu(tmp_path, history_scope="hospital_stay")
    assert raw.records.table["visit"].to_pylist() == ["20", "3", "4", "5", "6", "7"]
    assert wards.column(raw, "medications")["20"] == ["B01A", "C01A"]
    assert wards.column(raw, "symptoms")["20"] == ["cough", "chest pain", "fever"]
    assert wards.column(raw, "procedures")["20"] == ["pulmonary|chest x-ray", "renal|lasix drip"]


def test_codes_need_a_molecule_where_that_is_asked_for(tmp_path: Path) -> None:
    wards.eicu(tmp_path / "eicu")
    raw = eicu(tmp_path, needs_molecule=True)
    assert wards.column(raw, "medications")["1"] == ["B01A"]
    assert raw.dropped["order of a code without molecule"] == 1
    assert raw.entities["molecule"].to_pylist() == [{"id": "CC", "smiles": "CC"}]
    assert raw.entities["medication"].to_pylist() == [{"id": "B01A", "title": "B01A", "text": "It thins blood."}]
