"""Small folders in the layouts of MIMIC-III, MIMIC-IV and eICU, with what users bring beside them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from rec.data.runner import InProcess
from rec.data.schema import RawData, Source, Workplace
from rec.storage import Storage
from tests.support.own import quiet

Rows = list[dict[str, Any]]
SEPSIS, PAIN = "0389", "78650"
VANCOMYCIN, ASPIRIN, UNKNOWN, NOWHERE = "00000000011", "00000000012", "00000000013", "00000000014"
TITLES = {
    SEPSIS: "Unspecified septicemia, with shock",
    PAIN: "Chest pain, unspecified",
    "3893": "Venous catheterization",
}
PATIENTS = {"7001": "901", "7002": "901", "7003": "902", "7004": "903", "7005": "904", "7006": "905", "7007": "906"}
"""Patients by visit; the first two visits are of one patient, the second is the earlier one."""


def write(path: Path, rows: Rows, upper: bool = False) -> Path:
    """Write a table as the ending of its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows)
    frame.columns = [name.upper() if upper else name for name in frame.columns]
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return path


def admissions() -> Rows:
    times = {"7001": "2150-01-02 08:00:00", "7002": "2150-01-01 08:00:00"}
    found = [
        {"subject_id": p, "hadm_id": v, "admittime": times.get(v, "2160-05-05 00:00:00"), "diagnosis": "CHEST PAIN"}
        for v, p in PATIENTS.items()
    ]
    return [*found, {"subject_id": "907", "hadm_id": "7008", "admittime": "2150-01-01 00:00:00", "diagnosis": None}]


def prescriptions() -> Rows:
    def row(visit: str | None, ndc: str | None, route: str) -> dict[str, Any]:
        return {"hadm_id": visit, "drug": "a drug", "ndc": ndc, "route": route}

    found = [row(visit, ASPIRIN, "PO") for visit in PATIENTS for _ in range(3)]
    found += [row("7001", VANCOMYCIN, "IV"), row("7001", VANCOMYCIN, "PO"), row("7002", VANCOMYCIN, "PR")]
    found += [row("7003", UNKNOWN, "PO"), row("7003", NOWHERE, "PO"), row("7003", "99999999999", "PO")]
    found += [row("7003", "0", "PO"), row("7003", None, "PO"), row(None, ASPIRIN, "PO"), row("6666", ASPIRIN, "PO")]
    return [*found, row("7008", ASPIRIN, "PO")]


def mimic_iii(folder: Path, ending: str = ".csv", upper: bool = True) -> Path:
    """Write the tables of MIMIC-III; the last admission has no procedure."""
    diagnoses: Rows = [{"hadm_id": v, "seq_num": 2, "icd9_code": SEPSIS} for v in PATIENTS]
    diagnoses += [{"hadm_id": v, "seq_num": 1, "icd9_code": "V999"} for v in PATIENTS]
    diagnoses += [{"hadm_id": "7001", "seq_num": 3, "icd9_code": c} for c in (PAIN, SEPSIS)]
    diagnoses += [{"hadm_id": "7008", "seq_num": 1, "icd9_code": SEPSIS}, {"hadm_id": "7008", "icd9_code": None}]
    procedures: Rows = [{"hadm_id": v, "seq_num": 1, "icd9_code": "3893"} for v in PATIENTS]
    titles = [{"icd9_code": code, "short_title": "short", "long_title": title} for code, title in TITLES.items()]
    tables = {
        "admissions": admissions(), "prescriptions": prescriptions(), "diagnoses_icd": diagnoses,
        "procedures_icd": procedures, "d_icd_diagnoses": titles[:2], "d_icd_procedures": titles[2:],
    }  # fmt: skip
    for name, rows in tables.items():
        write(folder / f"{name.upper() if upper else name}{ending}", rows, upper)
    return folder


def mimic_iv(folder: Path) -> Path:
    """Write the tables of MIMIC-IV's hosp module, and a note of a visit in the folder beside."""
    hosp = folder / "mimiciv" / "hosp"
    stays = [{key: value for key, value in row.items() if key != "diagnosis"} for row in admissions()]
    codes: Rows = [{"hadm_id": v, "seq_num": 1, "icd_code": "I10  ", "icd_version": 10} for v in PATIENTS]
    codes += [{"hadm_id": "7001", "seq_num": 2, "icd_code": "I10", "icd_version": 9}]
    orders = [row | {"ndc": row["ndc"].lstrip("0") or "0" if row["ndc"] else None} for row in prescriptions()]
    titles: Rows = [{"icd_code": "I10", "icd_version": 10, "long_title": "Essential hypertension"}]
    for name, rows in {
        "admissions": stays, "prescriptions": orders, "diagnoses_icd": codes, "procedures_icd": codes,
        "d_icd_diagnoses": titles, "d_icd_procedures": titles,
    }.items():  # fmt: skip
        write(hosp / f"{name}.csv.gz", rows)
    (folder / "mimiciv" / "LICENSE.txt").write_text("The PhysioNet Credentialed Health Data License\nVersion 1.5.0\n")
    notes: Rows = [
        {"hadm_id": "7001", "note_type": "DS", "text": "Complains of abdominal\npain.\n\nNo FEVER; fevers gone."},
        {"hadm_id": "7001", "note_type": "RR", "text": "cough"},
        {"hadm_id": None, "note_type": "DS", "text": "cough"},
    ]
    write(folder / "note" / "discharge.csv.gz", notes)
    return folder


def eicu(folder: Path, upper: bool = False) -> Path:
    """Write the tables of eICU: a patient with two unit stays in one hospital stay and a later one, and five more."""
    stays = [("1", "901", 20, 2014, 2), ("2", "901", 20, 2014, 1), ("3", "901", 3, 2015, 1)]
    stays += [(str(n), f"90{n}", n, 2015, 1) for n in range(4, 9)]
    keys = ("patientunitstayid", "uniquepid", "patienthealthsystemstayid", "hospitaldischargeyear", "unitvisitnumber")
    visits = [stay[0] for stay in stays]
    orders: Rows = [order(v, "Aspirin  81 MG", None) for v in visits]
    orders += [order("1", None, 4.0), order("2", "ASPIRIN 81 mg", None, "Yes"), order("2", "heparin", None)]
    orders += [order("4", None, None), order("4", "a mystery", 99)]
    diagnoses: Rows = [
        {"patientunitstayid": v, "diagnosisoffset": 10 - n, "diagnosisstring": text}
        for v in visits
        for n, text in enumerate(("cardiovascular|chest pain / ASHD", "pulmonary|cough"))
    ]
    treatments: Rows = [
        {"patientunitstayid": v, "treatmentoffset": 1, "treatmentstring": text}
        for v in visits
        for text in ("pulmonary|chest x-ray", "cardiovascular|antiplatelet agent|aspirin", "renal|lasix drip")
        if v != "8" or "aspirin" in text
    ]
    reasons: Rows = [
        {"patientunitstayid": "1", "admitdxenteredoffset": 1, "admitdxpath": path, "admitdxtext": text}
        for path, text in (("x|All Diagnosis|Fever", "Fever, unknown"), ("x|Was the patient ...", "cough"))
    ]
    for name, rows in {
        "patient": [dict(zip(keys, stay, strict=True)) for stay in stays], "medication": orders,
        "diagnosis": diagnoses, "treatment": treatments, "admissionDx": reasons,
    }.items():  # fmt: skip
        write(folder / f"{name.upper() if upper else name}{'.csv.gz' if upper else '.parquet'}", rows, upper)
    (folder / "LICENSE.md").write_text("## ODC Open Database License (ODbL)\n")
    return folder


def order(visit: str, name: str | None, hicl: float | None, cancelled: str = "No") -> dict[str, Any]:
    return {
        "patientunitstayid": visit, "drugordercancelled": cancelled, "drugname": name, "drughiclseqno": hicl
    }  # fmt: skip


def maps(folder: Path) -> dict[str, str]:
    """Write the maps from NDC to ATC, and return the keys that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    ndc = {VANCOMYCIN: "11", ASPIRIN: "12", UNKNOWN: "", NOWHERE: "14"}
    (folder / "ndc.json").write_text(json.dumps(ndc))
    pairs = [("11", "A07AA"), ("11", "J01XA"), ("12", "B01AC"), ("12", "N02BA"), ("12", "B01AC")]
    atc = write(folder / "atc.csv", [{"RXCUI": rxcui, "ATC4": code} for rxcui, code in pairs])
    return {"ndc2rxcui": f"{folder}/ndc.json", "rxcui2atc": str(atc)}


def names(folder: Path) -> dict[str, str]:
    """Write the maps of names and of HICL numbers to ATC, and a table of drugs, and return their keys."""
    rows = [{"drugname": "aspirin 81 mg", "atc3": "B01A"}, {"drugname": "heparin", "atc3": "B01A"}]
    drugs = [
        {"atc5": "B01AC06", "name": "Aspirin", "groups": "approved", "smiles": "CC", "description": "It thins blood."},
        {"atc5": "C01AA05", "name": "digoxin", "groups": "approved", "smiles": "", "description": ""},
    ]
    return {
        "drug_names": str(write(folder / "names.csv", rows)),
        "hicl": str(write(folder / "hicl.csv", [{"drughiclseqno": 4.0, "atc3": "C01A"}])),
        "drugs": str(write(folder / "drugs.csv", drugs)),
    }


def terms(folder: Path) -> str:
    """Write a list of symptoms and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "symptoms.txt"
    path.write_text("pain\nchest pain\nabdominal pain\nfever\ncough\nshock\n")
    return str(path)


def opened(source: type[Source], place: Path, say: Any = quiet, **keys: Any) -> RawData:
    """Return what a source brings, of patients with one visit or more."""
    config = source.Config.model_validate({"minimum_visits": 1, **keys})
    return source(config).open(Workplace(Storage(str(place / "work")), InProcess(), say))


def column(raw: RawData, name: str) -> dict[str, Any]:
    """Return a column of events by visit."""
    table = raw.records.table
    return dict(zip(table["visit"].to_pylist(), table[name].to_pylist(), strict=True))
