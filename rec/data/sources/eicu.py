"""eICU as cohorts of stays with diagnoses, treatments, symptoms and medications.

Diagnoses and treatments are paths of words and have no codes of their own: the path is the id, its words are the title.
Times are offsets within a stay, so that stays have an order and no date.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.schema import RawData, Source, Workplace
from rec.data.sources.medication.cohort import LISTS, CohortSteps, Visits, build, known_of_drugs, known_terms, lists_of
from rec.data.sources.medication.drugs import WHAT_HICL, WHAT_NAMES, Orders, code_of_text
from rec.data.sources.medication.gathering import Extract, Gathered, codes_of, filtered, gather
from rec.data.sources.medication.keys import CohortConfig
from rec.data.sources.medication.leaks import Treatments, substance_words
from rec.data.sources.medication.official import find, given
from rec.data.sources.medication.substances import WHAT, known_codes, substance_names
from rec.data.tables import Kind, read_whole
from rec.data.tables.shown import hidden
from rec.errors import ConfigError
from rec.strict import Needs

NAME = "eICU"
RELEASE = "the tables of the eICU Collaborative Research Database (physionet.org/content/eicu-crd, or eicu-crd-demo)"
ADMISSION_DIAGNOSES = "All Diagnosis"
"""What stands in the paths of admission diagnoses."""


class EICUConfig(CohortConfig):
    """The keys of `[data.read]`."""

    NEEDS: ClassVar[Needs] = {**CohortConfig.NEEDS, "treatment_words": {"treatments": ["filtered"]}}

    drug_names: str = ""
    """Map of names of drugs to ATC: a table with columns drugname and atc3."""
    hicl: str = ""
    """Map of `drughiclseqno` to ATC for orders without a known name: a table with columns drughiclseqno and atc3."""
    treatments: Literal["filtered", "all"] = "filtered"
    """Whether treatments that name a drug or a class of drugs are left out: they tell what is to be predicted. Names of
    substances come from `drugs` and `atc_names`."""
    treatment_words: tuple[str, ...] = ()
    """Further parts of words by which treatments are left out, such as names that ATC does not use."""
    history_scope: Literal["unit_stay", "hospital_stay"] = "unit_stay"
    """What a visit is: a stay in a unit, of which a hospital stay may have several, so that what came before is the
    treatment that goes on; or a hospital stay with all of its units."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Rows of paths of words as codes of unit stays; see `rec.data.sources.medication.gathering.Extract`."""

    name: str
    within: str = ""
    """What must stand in the column `path`, "" where there is none."""

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, Counter[str]]:
        """Return the codes of rows with `visit`, `text` and `offset`."""
        dropped = Counter[str]()
        rows = filtered(rows, pc.is_valid(rows["visit"]), f"{self.name} without visit", dropped)
        rows = filtered(rows, pc.is_valid(rows["text"]), f"{self.name} without text", dropped)
        if self.within:
            inside = pc.match_substring(rows["path"], self.within)
            rows = filtered(rows, inside, f"{self.name} of another kind", dropped)
        return codes_of(rows["visit"], rows["text"], rows["offset"], rows["row"]), dropped


class EICU(Source):
    """Tables patient, medication, diagnosis, treatment and admissiondx."""

    Config = EICUConfig
    config: EICUConfig

    def open(self, place: Workplace) -> RawData:
        """Return the stays that have diagnoses, treatments and medications."""
        config, report = self.config, CohortSteps()
        orders = Orders(
            code_of_text(given("drug_names", config.drug_names, WHAT_NAMES), "drugname"),
            code_of_text(given("hicl", config.hicl, WHAT_HICL), "drughiclseqno") if config.hicl else {},
        )
        known, terms = known_of_drugs(config), known_terms(config)
        allowed = known_codes(known.molecules) if config.needs_molecule else None
        visits, stay = self._stays()
        admission = self._gather(place, "admissiondx", Paths("admission diagnosis", ADMISSION_DIAGNOSES))
        found = {
            "medications": self._gather(place, "medication", orders, allowed, config.frequent_medications),
            "diagnoses": self._gather(place, "diagnosis", Paths("diagnosis"), None, config.frequent_diagnoses),
            "procedures": self._gather(place, "treatment", Treatments(*self._forbidden())),
        }
        rows = {"medications": "order", "diagnoses": "diagnosis", "procedures": "treatment"}
        for field, gathered in found.items():
            report.gathered(rows[field], gathered)
            report.dropped += visits.add(field, gathered, rows[field])
        texts = lists_of(visits.visit, admission)[0]
        if config.history_scope == "hospital_stay":
            visits, texts = _of_hospitals(visits, stay, texts)
        visits.after = [list(listed or ()) for listed in texts.to_pylist()]
        titles = {
            field: {path: path.replace("|", ", ") for path in gathered.frequency}
            for field, gathered in found.items()
            if field != "medications"
        }
        return build(place, config, visits, titles, known, terms, report, f"{NAME} cohort")

    def _forbidden(self) -> tuple[frozenset[str] | None, tuple[str, ...]]:
        """Return the names of substances and further words that treatments may not have."""
        config = self.config
        if config.treatments == "all":
            return None, ()
        words = substance_words(substance_names(config.drugs, config.atc_names))
        if not words:
            raise ConfigError(
                'data.read.treatments: "filtered" takes names of ATC substances from data.read.drugs or '
                f"data.read.atc_names, which tell none; expected {WHAT}"
            )
        return words, tuple(map(str.lower, config.treatment_words))

    def _gather(
        self, place: Workplace, table: str, extract: Extract, allowed: Collection[str] | None = None, most: int = 0
    ) -> Gathered:
        official = find(self.config.folder, table, RELEASE)
        columns = COLUMNS[table]
        rows = {"medication": "order", "admissiondx": "admission diagnosis"}.get(table, table)
        by: Literal["code", "order"] = "code" if table == "medication" else "order"
        wanted = official.wanted({"visit": ("patientunitstayid", Kind.ID), **columns})
        return gather(place, rows, official, wanted, extract, most=most, allowed=allowed, by=by)

    def _stays(self) -> tuple[Visits, pa.Array]:
        """Return all unit stays, by patient, year, hospital stay and visit of a unit; and their hospital stays."""
        official = find(self.config.folder, "patient", RELEASE)
        columns = {
            "visit": ("patientunitstayid", Kind.ID), "patient": ("uniquepid", Kind.ID),
            "year": ("hospitaldischargeyear", Kind.NUMBER), "stay": ("patienthealthsystemstayid", Kind.ID),
            "order": ("patienthealthsystemstayid", Kind.NUMBER), "number": ("unitvisitnumber", Kind.NUMBER),
        }  # fmt: skip
        with hidden():
            table = read_whole(official.table, official.wanted(columns))
        table = table.sort_by([(n, "ascending") for n in ("patient", "year", "order", "number")]).combine_chunks()
        visits = Visits(table["patient"].combine_chunks(), table["visit"].combine_chunks())
        return visits, table["stay"].combine_chunks()


COLUMNS: Mapping[str, Mapping[str, tuple[str, Kind]]] = {
    "medication": {
        "cancelled": ("drugordercancelled", Kind.TEXT), "name": ("drugname", Kind.TEXT),
        "hicl": ("drughiclseqno", Kind.ID),
    },
    "diagnosis": {"text": ("diagnosisstring", Kind.TEXT), "offset": ("diagnosisoffset", Kind.NUMBER)},
    "treatment": {"text": ("treatmentstring", Kind.TEXT), "offset": ("treatmentoffset", Kind.NUMBER)},
    "admissiondx": {
        "text": ("admitdxtext", Kind.TEXT), "path": ("admitdxpath", Kind.TEXT),
        "offset": ("admitdxenteredoffset", Kind.NUMBER),
    },
}  # fmt: skip
"""What is read of each table beside the stay."""


def _of_hospitals(visits: Visits, stay: pa.Array, texts: pa.Array) -> tuple[Visits, pa.Array]:
    """Return hospital stays in the place of unit stays: what their units have, each once, medications sorted."""
    number = stay.dictionary_encode().indices.to_numpy()
    first = np.unique(number, return_index=True)[1]
    chosen = pa.array(np.sort(first))
    codes = {name: _united(column, number, name == "medications") for name, column in visits.codes.items()}
    united = Visits(visits.patient.take(chosen), stay.take(chosen), codes=codes)
    return united, _united(texts, number, False)


def _united(lists: pa.Array, number: np.ndarray, by_code: bool) -> pa.Array:
    """Return the lists of rows of one number as one, in the order in which numbers come."""
    found: dict[int, dict[str, None]] = {}
    for key, codes in zip(number.tolist(), lists.to_pylist(), strict=True):
        found.setdefault(key, {}).update(dict.fromkeys(codes or ()))
    return pa.array([sorted(codes) if by_code else list(codes) for codes in found.values()], LISTS)
