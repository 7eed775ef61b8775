"""MIMIC-III and MIMIC-IV in their official layouts, from rows made by hand."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rec.data.config import DataConfig
from rec.data.prepare import prepare
from rec.data.runner import InProcess
from rec.data.sources.mimic import MimicIII, MimicIV
from rec.data.tables.shown import HIDDEN
from rec.errors import ConfigError, DataError
from tests.support import wards

OF_TIME = ["7002", "7001", "7003", "7004", "7005", "7006", "7007"]


def iii(folder: Path, **keys: Any) -> Any:
    read = {"folder": str(folder / "iii"), **wards.maps(folder / "maps"), **keys}
    return wards.opened(MimicIII, folder, **read)


@pytest.mark.parametrize(("ending", "upper"), [(".csv", True), (".csv.gz", False), (".parquet", True)])
def test_admissions_have_their_codes_in_order(tmp_path: Path, ending: str, upper: bool) -> None:
    wards.mimic_iii(tmp_path / "iii", ending, upper)
    raw = iii(tmp_path, symptoms=wards.terms(tmp_path))
    table = raw.records.table
    assert table["visit"].to_pylist() == OF_TIME
    assert table["patient"].to_pylist() == ["901", "901", "902", "903", "904", "905", "906"]
    assert table["time"].to_pylist()[:2] == [5_680_310_400, 5_680_396_800]  # 1 and 2 January 2150, 8 o'clock, UTC
    assert wards.column(raw, "diagnoses")["7001"] == ["V999", "0389", "78650"]
    assert wards.column(raw, "diagnoses")["7003"] == ["V999", "0389"]
    assert wards.column(raw, "medications") == {v: ["B01A"] for v in OF_TIME} | {
        "7001": ["A07A", "B01A"], "7002": ["A07A", "B01A"]
    }  # fmt: skip
    assert wards.column(raw, "symptoms")["7001"] == ["chest pain", "shock"]
    titles = dict(zip(*(raw.entities["diagnosis"][name].to_pylist() for name in ("id", "title")), strict=True))
    assert titles == {"0389": "Unspecified septicemia, with shock", "78650": "Chest pain, unspecified", "V999": "V999"}
    assert raw.dropped == Counter(
        {
            "prescription without visit": 1, "prescription without NDC": 2, "prescription whose NDC has no RXCUI": 2,
            "prescription whose RXCUI has no ATC code": 1, "visit of prescriptions that no other table has": 1,
            "diagnosis without code": 1, "event without procedures": 1,
        }
    )  # fmt: skip


def test_the_route_chooses_where_it_is_asked_to(tmp_path: Path) -> None:
    wards.mimic_iii(tmp_path / "iii")
    found = wards.column(iii(tmp_path, mapping="route_aware"), "medications")
    assert found["7001"] == ["A07A", "B01A", "J01X"]  # into a vein, and by mouth
    assert found["7002"] == ["A07A", "B01A"]  # a route of no kind


def test_patients_with_too_few_visits_go_and_frequent_codes_stay(tmp_path: Path) -> None:
    wards.mimic_iii(tmp_path / "iii")
    raw = iii(tmp_path, minimum_visits=2, frequent_medications=1, frequent_diagnoses=2)
    assert raw.records.table["visit"].to_pylist() == ["7002", "7001"]
    assert wards.column(raw, "medications") == {"7001": ["B01A"], "7002": ["B01A"]}
    assert wards.column(raw, "diagnoses")["7001"] == ["V999", "0389"]
    assert raw.dropped["event of a patient with fewer than 2 visits"] == 5
    assert raw.dropped["prescription of a code too rare"] == 3


def test_mimic_iv_is_read_with_versions_of_codes_and_its_notes(tmp_path: Path) -> None:
    folder = wards.mimic_iv(tmp_path / "iv")
    read = {"folder": str(folder / "mimiciv"), **wards.maps(tmp_path / "maps"), "symptoms": wards.terms(tmp_path)}
    raw = wards.opened(MimicIV, tmp_path, **read, notes=f"{folder}/note/discharge.csv.gz")
    assert raw.records.table["visit"].to_pylist() == OF_TIME
    assert wards.column(raw, "diagnoses")["7001"] == ["I10_10", "I10_9"]
    assert raw.entities["diagnosis"]["title"].to_pylist() == ["Essential hypertension", "I10_9"]
    assert wards.column(raw, "medications")["7001"] == ["A07A", "B01A"]  # though zeros at the start of NDC are lost
    assert wards.column(raw, "symptoms")["7001"] == ["abdominal pain", "fever"]
    assert wards.column(raw, "symptoms")["7002"] == []
    assert raw.dropped["note of another kind"] == raw.dropped["note without visit or text"] == 1
    assert raw.licence == "PhysioNet credentialed"
    only = wards.opened(MimicIV, tmp_path, **read, notes=f"{folder}/note/discharge.csv.gz", needs_symptom=True)
    assert only.records.table["visit"].to_pylist() == ["7001"]


def test_summaries_among_the_notes_of_mimic_iii_are_searched(tmp_path: Path) -> None:
    wards.mimic_iii(tmp_path / "iii")
    rows: wards.Rows = [
        {"hadm_id": "7003", "category": "Discharge summary", "iserror": None, "text": "Cough,\r\n\r\nthen fever."},
        {"hadm_id": "7003", "category": "Nursing", "iserror": None, "text": "abdominal pain"},
        {"hadm_id": "7004", "category": "Discharge summary", "iserror": "1", "text": "cough"},
    ]
    notes = wards.write(tmp_path / "NOTEEVENTS.csv.gz", rows, upper=True)
    raw = iii(tmp_path, symptoms=wards.terms(tmp_path), notes=str(notes))
    found = wards.column(raw, "symptoms")
    assert (found["7003"], found["7004"]) == (["chest pain", "shock", "cough", "fever"], ["chest pain", "shock"])
    assert raw.dropped["note of another kind"] == raw.dropped["note marked as an error"] == 1


def test_a_map_that_is_missing_is_named_with_where_it_comes_from(tmp_path: Path) -> None:
    wards.mimic_iii(tmp_path / "iii")
    with pytest.raises(ConfigError, match=r"data.read.rxcui2atc: not set, expected the map of RXCUI to ATC.*rxnav"):
        iii(tmp_path, rxcui2atc="")
    with pytest.raises(DataError, match=r"data.read.drugs: .*/drugs.csv: no such file, expected a table of drugs"):
        iii(tmp_path, drugs=f"{tmp_path}/drugs.csv")
    (tmp_path / "iii" / "PRESCRIPTIONS.csv").unlink()
    with pytest.raises(DataError, match=r"no table 'prescriptions' here .*physionet.org/content/mimiciii"):
        iii(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"), [({"subject_id": None}, "7 rows without an id"), ({"hadm_id": "7001"}, "and 7 of a visit")]
)
def test_admissions_are_a_row_each_of_a_patient(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    wards.mimic_iii(tmp_path / "iii")
    rows = [row | (change if row["hadm_id"] != "7001" else {}) for row in wards.admissions()]
    wards.write(tmp_path / "iii" / "ADMISSIONS.csv", rows, upper=True)
    with pytest.raises(DataError, match=rf"MIMIC-III cohort: found .*{words}.*: expected a row per visit, with both"):
        iii(tmp_path)


def test_nothing_that_is_told_names_a_patient_or_a_visit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wards.mimic_iii(tmp_path / "iii")
    read = {"folder": str(tmp_path / "iii"), **wards.maps(tmp_path / "maps"), "minimum_visits": 1}
    read["symptoms"] = wards.terms(tmp_path)
    source = {"source": "rec.data.sources.mimic:MimicIII", "read": read, "split": {"protocol": "given"}}
    root = tmp_path / "out"
    data = prepare(DataConfig.model_validate({"root": str(root), **source}), InProcess(), print, ["visits"])
    wards.write(tmp_path / "iii" / "ADMISSIONS.csv", [row | {"admittime": ""} for row in wards.admissions()], True)
    with pytest.raises(DataError, match=r"column 'admittime': 8 rows have no value") as error:
        prepare(DataConfig.model_validate({"root": str(tmp_path / "o"), **source}), InProcess(), print)
    written = capfd.readouterr()
    told = (written.out + written.err + str(error.value)).replace(str(tmp_path), "")
    assert "visits kept" in told
    assert "prescriptions without NDC" in told
    assert not re.search(r"\b(90[1-8]|700[1-8]|6666)\b", told)
    assert data.manifest["private"]
    assert data.manifest["counts"]["interactions_read"] == 8
    assert data.manifest["dropped"] == {"event without procedures": 1}
    assert data.manifest["left_out"]["prescription without NDC"] == 2


@pytest.mark.parametrize(
    ("file", "cut", "told"),
    [
        ("PRESCRIPTIONS.csv", lambda text: text.rstrip("\n").rsplit(",", 3)[0] + "\n", r"row \d+: found \d+ values"),
        ("ADMISSIONS.csv", lambda text: text.rstrip("\n") + ',"SEPSIS OF 901', r"expected a quote that closes"),
        ("ADMISSIONS.csv", lambda text: re.sub(r"\b\d{4}-(?=\d\d-\d\d)", "9017001-XX-", text), r"column 'ADMITTIME'"),
    ],
    ids=["short row", "open quote", "time"],
)
def test_errors_in_damaged_tables_show_no_value(
    tmp_path: Path, file: str, cut: Callable[[str], str], told: str
) -> None:
    wards.mimic_iii(tmp_path / "iii")
    path = tmp_path / "iii" / file
    path.write_text(cut(path.read_text()))
    with pytest.raises(DataError, match=told) as error:
        iii(tmp_path)
    message = str(error.value).replace(str(tmp_path), "")
    assert HIDDEN in message
    assert not re.search(r"90[1-8]|700[1-8]|6666|SEPSIS", message)
