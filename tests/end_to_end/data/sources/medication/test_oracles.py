"""The demos of MIMIC-III and eICU give what is known of them: counts, visits row by row, and a simple baseline."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.data.prepared import Prepared
from rec.data.schema import RawData
from rec.data.sources.eicu import EICU
from rec.data.sources.medication.drugs import Prescriptions, candidates, code_of_text, drug_map, rxcui_of_ndc
from rec.data.sources.medication.interactions import codes_of_compounds
from rec.data.sources.medication.official import find
from rec.data.sources.medication.substances import molecules_of, names_of, read_drugs
from rec.data.sources.medication.symptoms import read_terms
from rec.data.sources.mimic import MimicIII
from rec.data.tables import ForeignTable, Kind, pieces, read_whole
from rec.evaluation.tasks.sets.metrics import ddi_rate, interacting_pairs, per_visit, summary
from tests.conftest import SHARED
from tests.support import wards
from tests.support.own import prepared

pytestmark = pytest.mark.data
SOURCE = SHARED / "medication"
MAPS, DERIVED = SOURCE / "mappings", SOURCE / "derived"
MIMIC = {
    "folder": f"{SOURCE}/mimic_iii_demo", "ndc2rxcui": f"{MAPS}/ndc2rxcui.json",
    "rxcui2atc": f"{MAPS}/ndc_rxcui_atc4.parquet",
}  # fmt: skip
STAYS = {
    "folder": f"{SOURCE}/eicu_crd_demo", "drug_names": f"{DERIVED}/eicu_drugname_to_atc3.csv",
    "hicl": f"{DERIVED}/eicu_hicl_to_atc3.csv", "drugs": f"{DERIVED}/atc_drug_catalog.parquet",
}  # fmt: skip
KNOWN = {
    "symptoms": f"{SOURCE}/text/drugrec_symptoms_887.json", "minimum_visits": 1,
    "interactions": f"{SOURCE}/ddi/union_ddi_pairs_atc3.csv",
}  # fmt: skip
SAFEDRUG = {"smiles": f"{SOURCE}/molecules/safedrug_master_atc3_to_smiles.json", "needs_molecule": True}
Open = Callable[..., tuple[RawData, str]]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Return what opens a demo with these keys, once for the same ones, and returns what it brings and tells."""
    if not SOURCE.exists():
        pytest.skip("needs ../shared/data/medication, which is not part of the project")
    made: dict[str, tuple[RawData, str]] = {}

    def open_it(source: Any, **keys: Any) -> tuple[RawData, str]:
        name = f"{source.__name__} {sorted(keys.items())}"
        if name not in made:
            told: list[str] = []
            read = (MIMIC if source is MimicIII else STAYS) | KNOWN | keys
            raw = wards.opened(source, tmp_path_factory.mktemp("cohort"), told.append, **read)
            made[name] = raw, "\n".join(told)
        return made[name]

    return open_it


TABLES = {
    "mimic_iii_demo": {
        "admissions": 129, "diagnoses_icd": 1_761, "patients": 100, "prescriptions": 10_398, "procedures_icd": 506,
        "d_icd_diagnoses": 14_567, "d_icd_procedures": 3_882,
    },
    "eicu_crd_demo": {
        "patient": 2_520, "hospital": 186, "diagnosis": 24_978, "medication": 75_604, "treatment": 38_290,
        "admissiondx": 7_578, "admissiondrug": 7_417, "pasthistory": 12_109, "allergy": 2_475, "physicalexam": 84_058,
    },
}  # fmt: skip


@pytest.mark.parametrize("folder", TABLES)
def test_tables_of_the_demos_have_the_rows_that_are_known(folder: str) -> None:
    if not SOURCE.exists():
        pytest.skip("needs ../shared/data/medication, which is not part of the project")
    found = {name: find(f"{SOURCE}/{folder}", name, "").table for name in TABLES[folder]}
    assert {name: sum(p.rows for p in pieces(table)) for name, table in found.items()} == TABLES[folder]


def test_files_beside_the_demos_are_read_as_is_known() -> None:
    if not SOURCE.exists():
        pytest.skip("needs ../shared/data/medication, which is not part of the project")
    assert len(rxcui_of_ndc(MIMIC["ndc2rxcui"])) == 4_204
    compounds = codes_of_compounds(f"{MAPS}/drug-atc.csv")
    assert (len(compounds), compounds["CID000004011"]) == (746, ["N06A"])
    counts = {}
    for name in ("safedrug_master", "nlammr_mimic3", "nlammr_mimic4"):
        molecules = molecules_of(f"{SOURCE}/molecules/{name}_atc3_to_smiles.json")
        counts[name] = len(molecules), sum(map(len, molecules.values()))
    assert counts["safedrug_master"] == counts["nlammr_mimic3"] == (112, 269)
    assert counts["nlammr_mimic4"][0] == 128
    assert len(names_of(f"{SOURCE}/text/who_atc3_names.csv")) == 271
    assert len(code_of_text(STAYS["hicl"], "drughiclseqno")) == 247
    drugs, _ = read_drugs(STAYS["drugs"], {}, "")
    every = list(itertools.chain.from_iterable(drugs.values()))
    told = (len(every), sum(bool(s.description) for s in every), sum(bool(s.smiles) for s in every))
    assert told == (5_678, 1_952, 1_803)


def fixture(name: str) -> dict[str, list[Any]]:
    return pq.read_table(DERIVED / f"{name}_demo_visits.parquet").to_pydict()  # type: ignore[no-any-return]


def numbers(told: str, *names: str) -> list[tuple[str, ...]]:
    """Return the numbers of lines of the table that is told."""
    rows = {line.strip().split("  ")[0]: line.split() for line in told.splitlines()}
    return [tuple(v for v in rows[name] if v.lstrip("-").replace(",", "").replace(".", "").isdigit()) for name in names]


def test_mimic_is_read_as_is_known(cohort: Open) -> None:
    raw, told = cohort(MimicIII)
    tables = ("prescriptions: rows read", "diagnoses: rows read", "procedures: rows read", "visits read")
    assert numbers(told, *tables) == [("10,398",), ("1,761",), ("506",), ("129",)]
    reasons = ("without NDC", "whose NDC has no RXCUI", "whose RXCUI has no ATC code")
    assert numbers(told, *(f"prescriptions {reason}" for reason in reasons)) == [
        ("-1,478", "8,920"), ("-24", "8,896"), ("-2,107", "6,789")
    ]  # fmt: skip
    assert numbers(told, "visits kept", "patients", "diagnoses", "procedures", "medications") == [
        ("107",), ("82",), ("523",), ("157",), ("106",)
    ]  # fmt: skip
    per_visit = [len(codes) for codes in wards.column(raw, "medications").values()]
    assert (sum(per_visit) / 107, min(per_visit), max(per_visit)) == (pytest.approx(18.61, abs=0.005), 4, 50)
    assert sum(map(bool, wards.column(raw, "symptoms").values())) == 91
    assert raw.licence == "ODbL 1.0"


def test_mimic_gives_the_visits_that_are_known_row_by_row(cohort: Open) -> None:
    table, known = cohort(MimicIII)[0].records.table.to_pydict(), fixture("mimic3")
    assert (table["patient"], table["visit"]) == (known["patient_id"], known["visit_id"])
    times = [np.datetime64(text, "s").astype(np.int64) for text in known["time"]]
    assert table["time"] == times
    for ours, theirs in {
        "diagnoses": "diag_codes", "procedures": "proc_codes", "symptoms": "symptom_texts", "medications": "med_atc3"
    }.items():  # fmt: skip
        assert table[ours] == known[theirs], ours


def test_eicu_gives_the_stays_that_are_known(cohort: Open) -> None:
    raw, told = cohort(EICU, treatments="all")
    table, known = raw.records.table.to_pydict(), fixture("eicu")
    assert numbers(told, "orders: rows read", "diagnoses: rows read", "treatments: rows read", "visits read") == [
        ("75,604",), ("24,978",), ("38,290",), ("2,520",)
    ]  # fmt: skip
    assert numbers(told, "visits kept", "patients", "diagnoses", "procedures", "medications") == [
        ("1,394",), ("1,109",), ("883",), ("1,064",), ("79",)
    ]  # fmt: skip
    assert (table["patient"], table["visit"]) == (known["patient_id"], list(map(str, known["visit_id"])))
    assert table["medications"] == known["med_atc3"]
    sizes = [len(codes) for codes in table["medications"]]
    assert (sum(sizes) / 1394, min(sizes), max(sizes)) == (pytest.approx(15.49, abs=0.005), 1, 40)
    assert sum(map(bool, table["symptoms"])) == 845
    # What has one offset stands in another order there, that of an unstable sort; here it is that of the file.
    for ours, theirs in {"diagnoses": "diag_texts", "procedures": "treatment_texts"}.items():
        found = [sorted(path.replace("|", ", ") for path in paths) for paths in table[ours]]
        assert found == [sorted(texts) for texts in known[theirs]], ours
    assert list(map(sorted, table["symptoms"])) == list(map(sorted, known["symptom_texts"]))
    count = np.bincount(np.unique(known["patient_id"], return_inverse=True)[1])
    assert ((count >= 2).sum(), count[count >= 2].sum()) == (182, 467)
    assert len(cohort(EICU, treatments="all", minimum_visits=2)[0].records.table) == 467


def test_eicu_gives_the_treatments_without_leaks_that_are_known(cohort: Open) -> None:
    table, known = cohort(EICU)[0].records.table.to_pydict(), fixture("eicu")
    clean = dict(zip(map(str, known["visit_id"]), known["treatment_texts_noleak"], strict=True))
    assert table["visit"] == [visit for visit, texts in clean.items() if texts]
    found = {
        visit: sorted(p.replace("|", ", ") for p in paths)
        for visit, paths in zip(table["visit"], table["procedures"], strict=True)
    }
    assert found == {visit: sorted(texts) for visit, texts in clean.items() if texts}
    assert len(set(itertools.chain.from_iterable(table["procedures"]))) == 314
    assert (len(table["visit"]), len(set(table["patient"]))) == (983, 826)


def test_known_shares_of_orders_have_a_code(cohort: Open) -> None:
    raw = cohort(EICU, treatments="all")[0]
    lost = raw.dropped["order without name or HICL number"] + raw.dropped["order whose drug has no ATC code"]
    assert raw.dropped["order with a cancellation"] == 2_636
    assert 1 - lost / (75_604 - 2_636) == pytest.approx(0.866, abs=0.0005)


@pytest.mark.parametrize(
    ("keys", "visits", "patients", "codes", "mean"),
    [
        ({}, 107, 82, 106, 18.61),
        (SAFEDRUG, 107, 82, 94, 18.26),
        (SAFEDRUG | {"minimum_visits": 2}, 36, 11, 71, 19.06),
        ({"drugs": STAYS["drugs"], "needs_molecule": True}, 107, 82, 100, None),
        ({"mapping": "route_aware"}, 107, 82, 109, None),
    ],
)  # fmt: skip
def test_options_give_the_cohorts_that_are_known(
    cohort: Open, keys: dict[str, Any], visits: int, patients: int, codes: int, mean: float | None
) -> None:
    table = cohort(MimicIII, **keys)[0].records.table
    medications = table["medications"].to_pylist()
    assert (len(table), len(set(table["patient"].to_pylist()))) == (visits, patients)
    assert len(set(itertools.chain.from_iterable(medications))) == codes
    assert mean is None or np.mean(list(map(len, medications))) == pytest.approx(mean, abs=0.005)


def test_routes_change_the_rows_that_are_known() -> None:
    if not SOURCE.exists():
        pytest.skip("needs ../shared/data/medication, which is not part of the project")
    wanted = {"ndc": ("ndc", Kind.ID), "route": ("route", Kind.TEXT), "visit": ("hadm_id", Kind.ID)}
    rows = read_whole(ForeignTable((f"{SOURCE}/mimic_iii_demo/PRESCRIPTIONS.csv",)), wanted)
    every, rxcui = candidates(MIMIC["rxcui2atc"]), rxcui_of_ndc(MIMIC["ndc2rxcui"])
    several = [len(every.get(rxcui.get(ndc or "", ""), ())) > 1 for ndc in rows["ndc"].to_pylist()]
    assert sum(several) == 3_537
    assert len(rxcui) == 4_204
    assert sum(value == "" for value in rxcui.values()) == 20
    codes = []
    for mapping in ("safedrug", "route_aware"):
        drugs = drug_map(MIMIC["ndc2rxcui"], MIMIC["rxcui2atc"], mapping)  # type: ignore[arg-type]
        codes.append(Prescriptions(drugs)(rows.combine_chunks())[0]["code"])
    assert sum(a != b for a, b in zip(*(column.to_pylist() for column in codes), strict=True)) == 1_712
    assert [len(pa.compute.unique(column)) for column in codes] == [106, 109]


def test_terms_and_titles_are_found_as_often_as_is_known(cohort: Open) -> None:
    raw, folder, terms = cohort(MimicIII)[0], SOURCE / "mimic_iii_demo", read_terms(str(KNOWN["symptoms"]))
    assert raw.records.table.num_rows == 107

    def read(name: str, **columns: str) -> dict[str, list[Any]]:
        kinds = {ours: (theirs, Kind.TEXT) for ours, theirs in columns.items()}
        return read_whole(ForeignTable((f"{folder}/{name}.csv",)), kinds).to_pydict()  # type: ignore[no-any-return]

    reasons = read("ADMISSIONS", reason="diagnosis")["reason"]
    assert sum(bool(terms.find(reason or "")) for reason in reasons) == 28
    hits: dict[str, bool] = {}
    for table, found in (("DIAGNOSES", 1_716), ("PROCEDURES", 503)):
        listed = read(f"D_ICD_{table}", code="icd9_code", title="long_title")
        title = dict(zip(listed["code"], listed["title"], strict=True))
        rows = read(f"{table}_ICD", visit="hadm_id", code="icd9_code")
        assert sum(code in title for code in rows["code"]) == found
        if table == "DIAGNOSES":
            for visit, code in zip(rows["visit"], rows["code"], strict=True):
                hits[visit] = hits.get(visit, False) or bool(terms.find(title.get(code, "")))
    assert sum(hits.values()) == 103


def matrix(data: Prepared) -> np.ndarray:
    size = len(data.entity("medication"))
    found = np.zeros((size, size), bool)
    left, right = np.array(data.array("interaction_pairs")).T
    found[left, right] = found[right, left] = True
    return found


def truth(data: Prepared, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the medications of each visit of a split, bool (N, V), and whose visit it is."""
    rows = data.rows(split)
    found = np.zeros((len(rows), len(data.entity("medication"))), bool)
    for row, codes in enumerate(rows["medications"].to_pylist()):
        found[row, codes] = True
    return found, rows["patient"].to_numpy()


RATES = [
    (MimicIII, {}, False, 0.0766, 19_853, 106),
    (MimicIII, {}, True, 0.0783, 19_424, 99),
    (MimicIII, SAFEDRUG, False, 0.0780, 19_058, 94),
    (EICU, {"treatments": "all"}, False, 0.0673, 192_539, 79),
    (EICU, {"treatments": "all"}, True, 0.0872, 148_636, 70),
    (EICU, SAFEDRUG | {"treatments": "all"}, False, 0.0790, 142_701, 68),
]


@pytest.mark.parametrize(("source", "keys", "published", "rate", "pairs", "codes"), RATES)
def test_true_rates_of_interactions_are_those_that_are_known(
    cohort: Open, source: Any, keys: dict[str, Any], published: bool, rate: float, pairs: int, codes: int
) -> None:
    raw = cohort(source, **keys)[0]
    members = raw.entities["medication"]["id"].to_pylist()
    if published:  # only codes of the published vocabularies
        names = ("safedrug_master", "nlammr_mimic3", "nlammr_mimic4")
        lists = [json.loads((SOURCE / "ddi" / f"{name}_med_vocab.json").read_text()) for name in names]
        members = [code for code in members if code in set(itertools.chain.from_iterable(lists))]
    assert len(members) == codes
    place = {code: n for n, code in enumerate(members)}
    interacts = np.zeros((codes, codes), bool)
    for pair in raw.relations["interaction"].table.to_pylist():
        a, b = place[pair["left"]], place[pair["right"]]  # pairs are of codes of the vocabularies alone
        interacts[a, b] = interacts[b, a] = True
    sets = np.zeros((len(raw.records.table), codes), bool)
    for row, listed in enumerate(raw.records.table["medications"].to_pylist()):
        sets[row, [place[code] for code in listed if code in place]] = True
    total = interacting_pairs(sets, interacts).sum(0)
    assert (round(ddi_rate(total).value or 0, 4), total[1]) == (rate, pairs)


POPULAR = [
    (
        "rec.data.sources.mimic:MimicIII", MIMIC, (64, 28, 15), (100, 339),
        {"jaccard_patient": 0.3831, "f1_patient": 0.5497, "prauc_patient": 0.7048, "ddi_rate": 0.0444,
         "medications": 10.0, "jaccard_visit": 0.3651, "f1_visit": 0.5303, "prauc_visit": 0.6987,
         "true_ddi_rate": 0.0891, "true_medications": 19.57},
        "A01A A02B A06A A12B A12C B01A B05C C07A N02A N02B",
    ),
    (
        "rec.data.sources.eicu:EICU", STAYS, (665, 155, 163), (73, 188),
        {"jaccard_patient": 0.3538, "f1_patient": 0.5125, "prauc_patient": 0.6542, "ddi_rate": 0.0444,
         "medications": 10.0, "jaccard_visit": 0.3495, "f1_visit": 0.5069, "prauc_visit": 0.6465,
         "true_ddi_rate": 0.0771, "true_medications": 15.41},
        "A02B A04A A06A A12B B01A B05B B05X C07A N02A N02B",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("source", "read", "sizes", "known", "values", "codes"), POPULAR, ids=["mimic", "eicu"])
def test_popularity_has_the_metrics_that_are_known(
    tmp_path: Path, source: str, read: dict[str, Any], sizes: tuple[int, int, int], known: tuple[int, int],
    values: dict[str, float], codes: str
) -> None:  # fmt: skip
    if not SOURCE.exists():
        pytest.skip("needs ../shared/data/medication, which is not part of the project")
    keys = KNOWN | read | {"drugs": STAYS["drugs"], "needs_molecule": True, "patients": "shuffled"}
    sections = {"source": source, "read": keys, "split": {"protocol": "given"}}
    data = prepared(tmp_path / "out", sections, view="visits")
    parts = {split: truth(data, split) for split in ("train", "test", "val")}
    assert tuple(len(sets) for sets, _ in parts.values()) == sizes
    patients = [set(patient.tolist()) for _, patient in parts.values()]
    assert not any(a & b for a, b in itertools.combinations(patients, 2))
    members = data.entity("medication")["id"].to_pylist()
    assert (len(members), len(data.array("interaction_pairs"))) == known
    share = parts["train"][0].mean(0)
    assert [code for code, often in zip(members, share >= 0.5, strict=True) if often] == codes.split()
    sets, patient = parts["test"]
    score = np.broadcast_to(share, sets.shape)
    found = summary(per_visit(sets, score, interaction_VV=matrix(data)), patient)
    digits = {"medications": 2, "true_medications": 2}
    assert {name: round(found[name].value or 0, digits.get(name, 4)) for name in values} == values
    assert data.manifest["licence"] == "ODbL 1.0"
