"""Visits of a clinical database as one data set: which are kept, whose part of the split they are, and what is known.

Nothing that is told names a patient or a visit.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.schema import Events, Field, RawData, Relation, Workplace
from rec.data.sources.medication import interactions as ddi
from rec.data.sources.medication import symptoms as told
from rec.data.sources.medication.gathering import READ, Gathered
from rec.data.sources.medication.keys import CohortConfig
from rec.data.sources.medication.official import given, licence_of
from rec.data.sources.medication.substances import WHAT, WHAT_NAMES, WHAT_SMILES, Knowledge, knowledge
from rec.data.sources.medication.symptoms import Terms
from rec.data.stages.drops import numbered
from rec.data.views.view import TEST, TRAIN, VALIDATION
from rec.errors import DataError
from rec.json_text import json_text
from rec.sections import plural

SECTIONS = ("diagnoses", "procedures", "medications")
"""What a visit must have of each."""
FIELDS = {
    "diagnoses": "diagnosis", "procedures": "procedure", "symptoms": "symptom", "medications": "medication"
}  # fmt: skip
TEXTS = {name: (name,) for name in FIELDS} | {"all": ("diagnoses", "procedures", "symptoms")}
LISTS = pa.list_(pa.string())


@dataclass(slots=True)
class Visits:
    """Visits in the order of their patients and, within one, of time; a row each."""

    patient: pa.Array
    visit: pa.Array
    time_s: np.ndarray | None = None
    """int64, seconds; None where a database tells the order alone."""
    codes: dict[str, pa.Array] = field(default_factory=dict)
    """list<str> by field; null or empty where a visit has none."""
    before: Sequence[Sequence[str]] | None = None
    """Texts of each visit that are searched for symptoms before the titles of its diagnoses ..."""
    after: Sequence[Sequence[str]] | None = None
    """... and after them."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.visit)

    def add(self, name: str, gathered: Gathered, row: str) -> Counter[str]:
        """Take the codes of a field, and return those of visits that are not there, by reason."""
        self.codes[name], strangers = lists_of(self.visit, gathered)
        return Counter({f"visit of {plural(row)} that no other table has": strangers})

    def take(self, mask: np.ndarray) -> Visits:
        """Return some visits."""
        chosen, rows = pa.array(mask), np.flatnonzero(mask)
        return Visits(
            self.patient.filter(chosen),
            self.visit.filter(chosen),
            None if self.time_s is None else self.time_s[mask],
            {name: column.filter(chosen) for name, column in self.codes.items()},
            None if self.before is None else [self.before[n] for n in rows.tolist()],
            None if self.after is None else [self.after[n] for n in rows.tolist()],
        )


@dataclass(slots=True)
class CohortSteps:
    """What was read and dropped on the way, in the order in which it happened."""

    steps: list[tuple[str, str, str]] = field(default_factory=list)
    """What, how many, and how many are left then, as a table has them."""
    dropped: Counter[str] = field(default_factory=Counter)

    def gathered(self, name: str, found: Gathered) -> None:
        """Note what became of a table's rows."""
        left = found.counts[READ]
        self.note(f"{plural(name)}: rows read", left)
        for reason, count in found.counts.items():
            if reason != READ:
                left -= count
                self.drop(reason, count, left)

    def note(self, name: str, value: float) -> None:
        """Note a number."""
        self.steps.append((name, f"{value:,}" if isinstance(value, int) else f"{value:.2f}", ""))

    def drop(self, reason: str, count: int, left: int) -> None:
        """Note what was dropped, and how many are left."""
        if count:
            self.dropped[reason] += count
            self.steps.append((f"  {numbered(2, reason).removeprefix('2 ')}", f"-{count:,}", f"{left:,}"))

    def lines(self) -> str:
        """Return the table of the cohort."""
        rows = [("", "", "left"), *self.steps]
        name, value, left = (max(len(row[n]) for row in rows) for n in range(3))
        return "\n".join(f"  {row[0]:<{name}}  {row[1]:>{value}}  {row[2]:>{left}}".rstrip() for row in rows)


def lists_of(visit: pa.Array, gathered: Gathered) -> tuple[pa.Array, int]:
    """Return the codes of each visit, null where it has none, and how many visits with codes are not among these."""
    place = pc.index_in(visit, value_set=gathered.lists["visit"].combine_chunks())
    known = pc.is_in(gathered.lists["visit"], visit)
    return gathered.lists["codes"].combine_chunks().take(place), pc.sum(pc.invert(known)).as_py() or 0


def known_of_drugs(config: CohortConfig) -> Knowledge:
    """Return what the user's files tell of medications."""
    paths = {"drugs": WHAT, "atc_names": WHAT_NAMES, "smiles": WHAT_SMILES}
    found = {key: given(key, getattr(config, key), what) if getattr(config, key) else "" for key, what in paths.items()}
    return knowledge(**found, groups=config.drug_groups, most=config.drugs_per_code)


def known_terms(config: CohortConfig) -> Terms | None:
    """Return the symptoms that are looked for, None where no list tells them."""
    return told.read_terms(given("symptoms", config.symptoms, told.WHAT)) if config.symptoms else None


def build(
    place: Workplace,
    config: CohortConfig,
    visits: Visits,
    titles: Mapping[str, Mapping[str, str]],
    known: Knowledge,
    terms: Terms | None,
    report: CohortSteps,
    name: str,
) -> RawData:
    """Return the data set of the visits that are kept.

    Args:
        place: What runs the passes over raw interactions, and who is told.
        config: Its keys.
        visits: All visits, with the codes of `SECTIONS`; symptoms of notes, if any, as field "symptoms".
        titles: Of the codes of fields; one without a title is its own.
        known: What is known of medications.
        terms: Symptoms that are looked for.
        report: What was read so far.
        name: Of the cohort, in messages.

    Raises:
        DataError: a visit stands in several rows or is of nobody, or none is left.
    """
    _refuse_strange(visits, name)
    visits.codes["symptoms"] = _symptoms(visits, titles["diagnoses"], terms)
    visits = _kept(visits, config, report)
    if not len(visits):
        steps = "; ".join(f"{step.strip()} {value}" for step, value, _ in report.steps)
        raise DataError(f"{name}: no visit is left; {steps}")
    table = _table(visits, config)
    codes = {entity: _codes(table[field]) for field, entity in FIELDS.items()}
    entities = {FIELDS[field]: _titled(codes[FIELDS[field]], titles.get(field, {})) for field in FIELDS}
    entities["medication"] = known.medications(codes["medication"])
    pairs = known.pairs(codes["medication"])
    relations = _relations(place, config, pairs, codes["medication"], report)
    if known.molecules:
        smiles = list(dict.fromkeys(pairs["molecule"].to_pylist()))
        entities["molecule"] = pa.table(
            {"id": smiles, "smiles": smiles}, pa.schema([(n, pa.string()) for n in ("id", "smiles")])
        )
    if known.unreadable:
        report.note("SMILES that cannot be read, left out", known.unreadable)
    _tell(table, codes, report)
    place.say(f"{name}:\n{report.lines()}")
    return RawData(
        records=Events(
            table=table, subject=Field("patient", "patient"), time="time" if visits.time_s is not None else None,
            fields=(Field("visit"), *(Field(field, entity) for field, entity in FIELDS.items())),
            part="part", name=name, texts=TEXTS,
        ),
        entities=entities, relations=relations, dropped=report.dropped,
        licence=licence_of(config.folder, config.licence),
        private=True,
        arrays={"cohort": np.frombuffer(json_text(report.steps).encode(), np.uint8)},
    )  # fmt: skip


def _table(visits: Visits, config: CohortConfig) -> pa.Table:
    """Return a row per visit: who, the codes of each field, when, and the part of the split."""
    columns = {"patient": visits.patient, "visit": visits.visit}
    columns |= {field: _filled(column) for field, column in visits.codes.items()}
    if visits.time_s is not None:
        columns["time"] = pa.array(visits.time_s, pa.int64())
    columns["part"] = pa.array(parts_of(visits.patient, config.patients, config.seed), pa.int8())
    return pa.table(columns)


def _refuse_strange(visits: Visits, name: str) -> None:
    """Refuse visits that are no row each of a patient."""
    nobody, twice = visits.patient.null_count, len(visits) - len(pc.unique(visits.visit))
    if nobody or visits.visit.null_count or twice:
        raise DataError(
            f"{name}: found {nobody + visits.visit.null_count:,} rows without an id of patient or visit, and {twice:,} "
            "of a visit that an earlier row has: expected a row per visit, with both"
        )


def parts_of(patient: pa.Array, order: str, seed: int) -> np.ndarray:
    """Return the part of each visit: that of its patient, so that nobody is in two.

    Of N patients the first int(2N/3) are for training, the next half of the rest, rounded down, for test, the others
    for validation. Source: the split of GAMENet, SafeDrug and NLA-MMR.
    """
    encoded = patient.dictionary_encode()
    place = list(range(len(encoded.dictionary)))
    if order == "shuffled":
        random.Random(seed).shuffle(place)
    train = int(len(place) * 2 / 3)
    test = train + (len(place) - train) // 2
    part = np.full(len(place), VALIDATION, np.int8)
    part[place[:train]], part[place[train:test]] = TRAIN, TEST
    return part[encoded.indices.to_numpy()]


def _symptoms(visits: Visits, titles: Mapping[str, str], terms: Terms | None) -> pa.Array:
    """Return the terms in the texts of each visit, each once, in their order, those of its notes last."""
    nothing = pa.nulls(len(visits), LISTS)
    noted = visits.codes.get("symptoms", nothing)
    if terms is None:
        return nothing
    columns = (visits.before, visits.codes["diagnoses"].to_pylist(), visits.after, noted.to_pylist())
    empty: list[list[str]] = [[]] * len(visits)
    found = []
    for before, codes, after, notes in zip(*(empty if c is None else c for c in columns), strict=True):
        known = (terms.find_in_title(titles[code]) for code in codes or () if code in titles)
        searched = [*map(terms.find, before), *known, *map(terms.find, after), notes or ()]
        found.append(list(dict.fromkeys(term for part in searched for term in part)))
    return pa.array(found, LISTS)


def _kept(visits: Visits, config: CohortConfig, report: CohortSteps) -> Visits:
    """Return the visits that have all they must have, of patients that have enough of them."""
    report.note("visits read", len(visits))
    for section in (*SECTIONS, *(("symptoms",) if config.needs_symptom else ())):
        length = pc.fill_null(pc.list_value_length(visits.codes[section]), 0).to_numpy()
        visits = _without(visits, length > 0, f"event without {section}", report)
    patient = visits.patient.dictionary_encode().indices.to_numpy()
    enough = np.bincount(patient, minlength=1)[patient] >= config.minimum_visits
    return _without(visits, enough, f"event of a patient with fewer than {config.minimum_visits} visits", report)


def _without(visits: Visits, kept: np.ndarray, reason: str, report: CohortSteps) -> Visits:
    report.drop(reason, int((~kept).sum()), int(kept.sum()))
    return visits.take(kept)


def _relations(
    place: Workplace, config: CohortConfig, pairs: pa.Table, medications: Sequence[str], report: CohortSteps
) -> dict[str, Relation]:
    """Return what medications have to do with molecules and with one another."""
    found = {}
    if len(pairs):
        left, right = Field("medication", "medication"), Field("molecule", "molecule")
        found["medication_molecule"] = Relation(table=pairs, left=left, right=right)
    if config.interactions:
        keys = {"interactions": ddi.WHAT, "interaction_codes": ddi.WHAT_CODES, "cid_atc": ddi.WHAT_CID}
        uri, codes, cid_atc = (given(k, p, what) if (p := getattr(config, k)) else "" for k, what in keys.items())
        every = ddi.read_interactions(uri, codes, cid_atc, config.rarest_effects, place.runner)
        table = ddi.as_table(every.pairs, medications)
        silent = sum(code not in every.codes for code in medications)
        report.note("interacting pairs of medications", len(table))
        report.note("medications of which interactions tell nothing", silent)
        if silent == len(medications):
            place.say(f"{uri}: tells nothing of any of the {silent:,} medications: interactions are taken as not known")
            return found
        left, right = Field("left", "medication"), Field("right", "medication")
        value = "severity" if any(table["severity"].to_pylist()) else ""
        found["interaction"] = Relation(table=table, left=left, right=right, value=value)
    return found


def _tell(table: pa.Table, codes: Mapping[str, Sequence[str]], report: CohortSteps) -> None:
    """Note what the cohort is made of."""
    report.note("visits kept", len(table))
    report.note("patients", len(pc.unique(table["patient"])))
    for name, entity in FIELDS.items():
        mean = float(pc.sum(pc.list_value_length(table[name])).as_py() or 0) / len(table)
        report.note(name, len(codes[entity]))
        report.note("  per visit", mean)


def _filled(column: pa.Array) -> pa.Array:
    """Return lists with an empty one in the place of a null."""
    return pc.coalesce(column, pa.scalar([], LISTS)) if column.null_count else column


def _codes(column: pa.ChunkedArray) -> list[str]:
    return sorted(pc.unique(column.combine_chunks().flatten()).to_pylist())


def _titled(codes: Sequence[str], titles: Mapping[str, str]) -> pa.Table:
    """Return a table of codes; one without a title is its own."""
    names = [titles.get(code, code) for code in codes]
    return pa.table({"id": pa.array(codes, pa.string()), "title": pa.array(names, pa.string())})
