"""MIMIC-III and MIMIC-IV as cohorts of hospital admissions with diagnoses, procedures, symptoms and medications.

Source of the cohort: GAMENet, SafeDrug, DrugRec and NLA-MMR, but that no missing value is filled from the row before,
which may be another patient's. Codes of diagnoses and procedures are written after discharge: they know of the stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from rec.data.schema import RawData, Source, Workplace
from rec.data.sources.medication.cohort import CohortSteps, Visits, build, known_of_drugs, known_terms
from rec.data.sources.medication.drugs import WHAT_ATC, WHAT_NDC, Prescriptions, drug_map
from rec.data.sources.medication.gathering import Gathered, codes_of, filtered, gather
from rec.data.sources.medication.keys import CohortConfig
from rec.data.sources.medication.official import Official, as_official, find, given
from rec.data.sources.medication.substances import known_codes
from rec.data.sources.medication.symptoms import Notes, Terms
from rec.data.tables import Kind, pieces, read_whole, time_form
from rec.data.tables.reading import Wanted
from rec.data.tables.shown import hidden
from rec.errors import DataError
from rec.strict import Needs

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
NOTES_AT_ONCE = 2048
"""Discharge summaries are long."""
WHAT_NOTES = "the notes: NOTEEVENTS of MIMIC-III, or discharge of MIMIC-IV-Note (physionet.org/content/mimic-iv-note)"


class MimicConfig(CohortConfig):
    """The keys of `[data.read]`."""

    NEEDS: ClassVar[Needs] = {**CohortConfig.NEEDS, "notes": {"symptoms": {"not": [""]}}}

    ndc2rxcui: str = ""
    """Map of NDC to RXCUI: JSON, SafeDrug's ndc2RXCUI.txt, or a table with columns NDC and RXCUI."""
    rxcui2atc: str = ""
    """Map of RXCUI to ATC: a table with columns RXCUI and ATC4, all of an RXCUI's codes in their order."""
    mapping: Literal["safedrug", "route_aware"] = "safedrug"
    """Which code an RXCUI becomes: its first, as published, or the first that fits the route. The second is no clinical
    advice either, but calls vancomycin into a vein an antibiotic and not an intestinal agent."""
    notes: str = ""
    """Notes whose discharge summaries are searched for symptoms too; they are written after the treatment."""


@dataclass(frozen=True, slots=True)
class Coded:
    """Rows of diagnoses or procedures as codes of admissions; see `rec.data.sources.medication.gathering.Extract`."""

    name: str

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, Counter[str]]:
        """Return the codes of rows with `visit`, `code`, `number` and, in MIMIC-IV, `version`."""
        dropped = Counter[str]()
        rows = filtered(rows, pc.is_valid(rows["visit"]), f"{self.name} without visit", dropped)
        rows = filtered(rows, pc.is_valid(rows["code"]), f"{self.name} without code", dropped)
        return codes_of(rows["visit"], versioned(rows), rows["number"], rows["row"]), dropped


@dataclass(frozen=True, slots=True)
class Release:
    """What sets the tables of the two releases apart."""

    name: str
    official: str
    """What its folder is to hold, for errors."""
    icd: Wanted
    """What is read of codes of diagnoses and procedures."""


III = Release(
    "MIMIC-III",
    "the tables of MIMIC-III (physionet.org/content/mimiciii, or its demo, mimiciii-demo)",
    {"code": ("icd9_code", Kind.ID), "number": ("seq_num", Kind.NUMBER)},
)
IV = Release(
    "MIMIC-IV",
    "the tables of MIMIC-IV's hosp module (physionet.org/content/mimiciv, or its demo, mimic-iv-demo)",
    {"code": ("icd_code", Kind.ID), "version": ("icd_version", Kind.ID), "number": ("seq_num", Kind.NUMBER)},
)


@dataclass(frozen=True, slots=True)
class Admissions:
    """The admissions of a release."""

    config: MimicConfig
    release: Release

    def cohort(self, place: Workplace) -> RawData:
        """Return the admissions that have diagnoses, procedures and medications."""
        config, report = self.config, CohortSteps()
        drugs = drug_map(
            given("ndc2rxcui", config.ndc2rxcui, WHAT_NDC), given("rxcui2atc", config.rxcui2atc, WHAT_ATC),
            config.mapping,
        )  # fmt: skip
        known, terms = known_of_drugs(config), known_terms(config)
        visits, ndc = self._admissions(), {"ndc": ("ndc", Kind.ID), "route": ("route", Kind.TEXT)}
        prescriptions = self._read("prescriptions", ndc)
        allowed = known_codes(known.molecules) if config.needs_molecule else None
        orders = gather(
            place, "prescription", *prescriptions, Prescriptions(drugs), most=config.frequent_medications,
            allowed=allowed, by="code",
        )  # fmt: skip
        diagnoses, procedures = (self._read(table, self.release.icd) for table in ("diagnoses_icd", "procedures_icd"))
        found = {
            "medications": orders,
            "diagnoses": gather(
                place, "diagnosis", *diagnoses, Coded("diagnosis"), most=config.frequent_diagnoses
            ),
            "procedures": gather(place, "procedure", *procedures, Coded("procedure")),
        }  # fmt: skip
        if config.notes and terms is not None:
            found["symptoms"] = self._notes(place, terms)
        rows = {"medications": "prescription", "diagnoses": "diagnosis", "procedures": "procedure", "symptoms": "note"}
        for field, gathered in found.items():
            report.gathered(rows[field], gathered)
            report.dropped += visits.add(field, gathered, rows[field])
        titles = {"diagnoses": self._titles("d_icd_diagnoses"), "procedures": self._titles("d_icd_procedures")}
        return build(place, config, visits, titles, known, terms, report, f"{self.release.name} cohort")

    def _find(self, table: str) -> Official:
        return find(self.config.folder, table, self.release.official)

    def _read(self, table: str, columns: Mapping[str, tuple[str, Kind]]) -> tuple[Official, Wanted]:
        """Return a table of admissions and what is read of it."""
        official = self._find(table)
        return official, official.wanted({"visit": ("hadm_id", Kind.ID), **columns})

    def _notes(self, place: Workplace, terms: Terms) -> Gathered:
        """Return the terms in discharge summaries."""
        official = as_official(given("notes", self.config.notes, WHAT_NOTES))
        category = "category" if "category" in official.names else "note_type"
        columns = {"visit": ("hadm_id", Kind.ID), "category": (category, Kind.TEXT), "text": ("text", Kind.TEXT)}
        if "iserror" in official.names:
            columns["error"] = ("iserror", Kind.TEXT)
        return gather(place, "note", official, official.wanted(columns), Notes(terms), rows_at_once=NOTES_AT_ONCE)

    def _admissions(self) -> Visits:
        """Return all admissions, by patient (as text) and time."""
        official = self._find("admissions")
        columns = {
            "visit": ("hadm_id", Kind.ID), "patient": ("subject_id", Kind.ID), "time": ("admittime", Kind.TIME)
        }  # fmt: skip
        if "diagnosis" in official.names:
            columns["reason"] = ("diagnosis", Kind.TEXT)
        with hidden():
            table = read_whole(official.table, official.wanted(columns))
        if table["time"].null_count:
            raise DataError(
                f"{official.table.paths[0]}: column 'admittime': {table['time'].null_count:,} rows have no value, "
                "expected one in every admission"
            )
        with hidden():
            form = time_form(official.table, official.names["admittime"], pieces(official.table))
        keys = [(name, "ascending") for name in ("patient", "time", "row")]
        table = table.sort_by(keys).combine_chunks()
        reasons = table["reason"].to_pylist() if "reason" in columns else None
        return Visits(
            table["patient"].combine_chunks(), table["visit"].combine_chunks(),
            table["time"].to_numpy() // PER_SECOND.get(form.unit, 1),
            before=None if reasons is None else [[reason] if reason else [] for reason in reasons],
        )  # fmt: skip

    def _titles(self, name: str) -> dict[str, str]:
        """Return the title of every code of a dictionary."""
        official = self._find(name)
        columns = {key: value for key, value in self.release.icd.items() if key != "number"}
        table = read_whole(official.table, official.wanted(columns | {"title": ("long_title", Kind.TEXT)}))
        titles = zip(versioned(table).to_pylist(), table["title"].to_pylist(), strict=True)
        return {code: title for code, title in titles if code and title}


class MimicIII(Source):
    """MIMIC-III: ADMISSIONS, DIAGNOSES_ICD, PROCEDURES_ICD, PRESCRIPTIONS, D_ICD_DIAGNOSES, D_ICD_PROCEDURES."""

    Config = MimicConfig
    config: MimicConfig

    def open(self, place: Workplace) -> RawData:
        """Return the cohort."""
        return Admissions(self.config, III).cohort(place)


class MimicIV(Source):
    """MIMIC-IV: hosp/ admissions, diagnoses_icd, procedures_icd, prescriptions, d_icd_diagnoses, d_icd_procedures."""

    Config = MimicConfig
    config: MimicConfig

    def open(self, place: Workplace) -> RawData:
        """Return the cohort."""
        return Admissions(self.config, IV).cohort(place)


def versioned(rows: pa.Table) -> pa.ChunkedArray:
    """Return codes without spaces, with their ICD version where there is one: I10 of ICD-10 is I10_10."""
    code = pc.utf8_trim_whitespace(rows["code"])
    return pc.binary_join_element_wise(code, rows["version"], "_") if "version" in rows.column_names else code
